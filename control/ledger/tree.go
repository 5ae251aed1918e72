package ledger

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/norion/norion/control/ledger/storage"
)

// Tiles have 2^tileHeight hashes.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// tile is a full tile that is to be stored.
type tile struct {
	level int
	n     int64
	data  []byte
}

// tree is the right edge of the Merkle tree: all that appending needs. The full tiles to its left
// are stored. levels[l] are the hashes of the tile at level l that is not full yet.
type tree struct {
	size   int64 // leaves
	levels [][]tlog.Hash
}

func (t *tree) clone() *tree {
	c := &tree{size: t.size, levels: make([][]tlog.Hash, len(t.levels))}
	for i, level := range t.levels {
		c.levels[i] = append(make([]tlog.Hash, 0, tileWidth), level...)
	}
	return c
}

// append adds a leaf and returns the tiles that became full.
func (t *tree) append(h tlog.Hash) (full []tile) {
	for level := 0; ; level++ {
		if level == len(t.levels) {
			t.levels = append(t.levels, make([]tlog.Hash, 0, tileWidth))
		}
		t.levels[level] = append(t.levels[level], h)
		if len(t.levels[level]) < tileWidth {
			break
		}
		full = append(full, tile{
			level: level, n: t.size >> (tileHeight * (level + 1)), data: flat(t.levels[level]),
		})
		h = root(t.levels[level])
		t.levels[level] = t.levels[level][:0]
	}
	t.size++
	return full
}

// root is the hash over a power of two of hashes.
func root(hashes []tlog.Hash) tlog.Hash {
	switch len(hashes) {
	case 1:
		return hashes[0]
	case 2:
		return tlog.NodeHash(hashes[0], hashes[1])
	}
	half := len(hashes) / 2
	return tlog.NodeHash(root(hashes[:half]), root(hashes[half:]))
}

func flat(hashes []tlog.Hash) []byte {
	data := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	return data
}

func unflat(data []byte) ([]tlog.Hash, error) {
	if len(data) != tileWidth*tlog.HashSize {
		return nil, fmt.Errorf("%w: a tile of %d bytes", storage.ErrCorrupt, len(data))
	}
	hashes := make([]tlog.Hash, 0, tileWidth)
	for h := range slices.Chunk(data, tlog.HashSize) {
		hashes = append(hashes, tlog.Hash(h))
	}
	return hashes, nil
}

// loadTree reads the right edge of the first size events from what is stored.
func loadTree(ctx context.Context, r storage.Reader, size int64) (*tree, error) {
	t := &tree{size: size}
	leaves, err := r.Leaves(ctx, size-size%tileWidth+1, size)
	if err != nil {
		return nil, err
	}
	if int64(len(leaves)) != size%tileWidth {
		return nil, fmt.Errorf("%w: events are missing before %d", storage.ErrCorrupt, size)
	}
	edge := make([]tlog.Hash, 0, tileWidth)
	for _, leaf := range leaves {
		edge = append(edge, leaf)
	}
	t.levels = append(t.levels, edge)
	for level := 1; size>>(tileHeight*level) > 0; level++ {
		n := size >> (tileHeight * level) // full tiles of the level below
		edge := make([]tlog.Hash, 0, tileWidth)
		for child := n - n%tileWidth; child < n; child++ {
			hashes, err := storedTile(ctx, r, level-1, child)
			if err != nil {
				return nil, err
			}
			edge = append(edge, root(hashes))
		}
		t.levels = append(t.levels, edge)
	}
	return t, nil
}

func storedTile(ctx context.Context, r storage.Reader, level int, n int64) ([]tlog.Hash, error) {
	data, err := r.Tile(ctx, level, n)
	if err != nil {
		return nil, err
	}
	if data == nil {
		return nil, fmt.Errorf("%w: tile %d/%d is missing", storage.ErrCorrupt, level, n)
	}
	return unflat(data)
}

// hash returns the root of the tree.
func (t *tree) hash() (tlog.Hash, error) {
	// The hashes that make up a root all lie on the right edge.
	return tlog.TreeHash(t.size, t.reader(nil))
}

// reader gives the hashes of the tree; full returns the full tiles. It may be nil where only the
// right edge is asked for.
func (t *tree) reader(full func(level int, n int64) (heap, error)) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			level, n := tlog.SplitStoredHashIndex(index)
			h, err := t.at(level/tileHeight, level%tileHeight, n, full)
			if err != nil {
				return nil, err
			}
			hashes[i] = h
		}
		return hashes, nil
	})
}

// at returns the n-th hash at a height within the tiles of a level.
func (t *tree) at(level, height int, n int64, full func(int, int64) (heap, error)) (
	tlog.Hash, error,
) {
	width := int64(tileWidth >> height) // hashes of this height in a tile
	tileN, i := n/width, n%width
	switch edge := t.size >> (tileHeight * (level + 1)); {
	case tileN < edge && full != nil:
		tile, err := full(level, tileN)
		if err != nil {
			return tlog.Hash{}, err
		}
		return tile[width+i], nil
	case tileN == edge && level < len(t.levels) && (i+1)<<height <= int64(len(t.levels[level])):
		return root(t.levels[level][i<<height : (i+1)<<height]), nil
	}
	return tlog.Hash{}, fmt.Errorf("%w: no hash %d at level %d", storage.ErrCorrupt, n, level)
}

// heap is a full tile with the hashes between its leaves and its root: the children of i are 2i and
// 2i+1, the root is 1.
type heap []tlog.Hash

func newHeap(leaves []tlog.Hash) heap {
	h := make(heap, tileWidth, 2*tileWidth)
	h = append(h, leaves...)
	for i := tileWidth - 1; i > 0; i-- {
		h[i] = tlog.NodeHash(h[2*i], h[2*i+1])
	}
	return h
}
