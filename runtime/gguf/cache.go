package gguf

import "math"

// CacheSize is what one sequence costs in the KV cache. Full layers grow with every token;
// windowed ones keep at most Window tokens (llama.cpp adds a micro-batch to that, and more with
// several sequences or with a full-size window cache).
type CacheSize struct {
	FullLayers    int
	FullBytes     int64 // per token, all full layers together
	WindowLayers  int
	WindowBytes   int64 // per token inside the window, all windowed layers together
	Window        int   // tokens; 0 when WindowLayers is 0
	SharedLayers  int   // layers that read the cache of another layer
	StateLayers   int   // recurrent layers, of constant size that is not counted here
	IndexNotKnown bool  // an index cache comes on top that is not counted here
}

// Bytes is the cost of the first n tokens of one sequence: full layers times n, windowed layers
// times min(n, Window). It saturates instead of wrapping.
func (c CacheSize) Bytes(n int64) int64 {
	return saturate(times(c.FullBytes, n), times(c.WindowBytes, min(n, int64(c.Window))))
}

func times(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}

// CacheSize computes the KV cost for keys of type k and values of type v. A quantised type whose
// block does not divide the head length gives ErrCacheType, as llama.cpp refuses it.
func (s Shape) CacheSize(k, v TensorType) (CacheSize, error) {
	c := CacheSize{IndexNotKnown: s.CacheExtra}
	for i, l := range s.Layers {
		if l.Recurrent {
			c.StateLayers++
		}
		if !l.Cached {
			if s.Cache != CacheNone && !l.Recurrent && l.KVHeads > 0 && i < len(s.Layers)-s.DraftLayers {
				c.SharedLayers++
			}
			continue
		}
		bytes, err := s.LayerCache(i, k, v)
		if err != nil {
			return CacheSize{}, err
		}
		if l.Window > 0 {
			c.Window = l.Window
			c.WindowLayers++
			c.WindowBytes += bytes
		} else {
			c.FullLayers++
			c.FullBytes += bytes
		}
	}
	return c, nil
}

// LayerCache is what layer i keeps of one token, in bytes; 0 where it keeps nothing of its own.
// Errors as CacheSize.
func (s Shape) LayerCache(i int, k, v TensorType) (int64, error) {
	l := s.Layers[i]
	if !l.Cached {
		return 0, nil
	}
	keys, err := rowBytes(k, l.KeyLength, l.KVHeads, i)
	if err != nil {
		return 0, err
	}
	values, err := rowBytes(v, l.ValueLength, l.KVHeads, i)
	return keys + values, err
}

// rowBytes is the size of heads x length elements of type t.
func rowBytes(t TensorType, length, heads, layer int) (int64, error) {
	block, bytes := t.Block()
	if block == 0 || int64(length)%block != 0 {
		e := fault(ErrCacheType, "", -1, "choose f16", "%s has blocks of %d, a head of layer %d has %d",
			t, block, layer, length)
		e.Op = "check"
		return 0, e
	}
	return int64(length) * int64(heads) / block * bytes, nil
}
