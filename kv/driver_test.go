package kv_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/norion/norion/kv"
)

// driver does to a Cache and a machine what an engine would do, in an order that choose decides.
type driver struct {
	cfg     kv.Config
	c       *kv.Cache
	m       *machine
	choose  func(n int) int // 0..n-1
	rest    map[kv.Seq][]kv.Token
	parked  map[kv.BlobID][]kv.Token
	history []past
	keys    []kv.Key
	policy  func() kv.Policy
	clean   bool // no faults, no policies: reuse is compared with the best there is
	prompt  int  // longest fresh part of a prompt
	counts  map[string]int
}

type past struct {
	key    kv.Key
	tokens []kv.Token
}

func newDriver(cfg kv.Config, choose func(int) int) (*driver, error) {
	m := newMachine(cfg)
	if cfg.Window > 0 && cfg.PosMin == nil && choose(2) == 0 {
		cfg.PosMin = m.posMin
	}
	c, err := kv.New(cfg)
	d := &driver{
		cfg: cfg, c: c, m: m, choose: choose, rest: map[kv.Seq][]kv.Token{},
		parked: map[kv.BlobID][]kv.Token{}, prompt: 60, counts: map[string]int{},
		keys: []kv.Key{
			{Model: "m"},
			{Model: "m", Salt: "a", PublicTokens: 40},
			{Model: "m", Salt: "b", PublicTokens: 40},
			{Model: "m", Scope: "s"},
		},
	}
	return d, err
}

func (d *driver) tokens(n int) []kv.Token {
	out := make([]kv.Token, n)
	for i := range out {
		out[i] = kv.Token(d.choose(3))
	}
	return out
}

// newPrompt goes on from something earlier, branches off from it, or starts anew.
func (d *driver) newPrompt() past {
	p := past{key: d.keys[d.choose(len(d.keys))]}
	if len(d.history) > 0 && d.choose(4) > 0 {
		p = d.history[d.choose(len(d.history))]
		switch d.choose(4) {
		case 0:
			p.tokens = p.tokens[:1+d.choose(len(p.tokens))]
		case 1:
			at := d.choose(len(p.tokens))
			to := at + d.choose(len(p.tokens)-at)
			p.tokens = slices.Concat(p.tokens[:at], p.tokens[to:])
		case 2:
			p.key = d.keys[d.choose(len(d.keys))]
		}
	}
	p.tokens = slices.Concat(p.tokens, d.tokens(1+d.choose(d.prompt)))
	return p
}

// do runs what a call planned and answers what has to be answered at once.
func (d *driver) do(ops []kv.Op) error {
	if err := d.m.run(ops); err != nil {
		return err
	}
	for len(d.m.saves) > 0 {
		id := d.m.saves[0]
		d.m.saves = d.m.saves[1:]
		bytes := int64(1)
		if b := d.m.ram[id]; b != nil {
			bytes = b.bytes
		}
		if err := d.m.run(d.c.Saved(id, bytes)); err != nil {
			return err
		}
	}
	return d.faults()
}

// faults tells the Cache what did not succeed.
func (d *driver) faults() error {
	failed := d.m.failed
	d.m.failed = nil
	for _, op := range failed {
		d.counts["fault"]++
		switch op.Kind {
		case kv.Save, kv.Checkpoint:
			d.c.SaveFailed(op.Blob)
		case kv.Spill:
			d.c.SpillFailed(op.Blob)
		case kv.SeqCopy, kv.Restore:
			if op.Kind == kv.Restore {
				d.c.Lost(op.Blob, op.Place)
				delete(d.m.ram, op.Blob)
				delete(d.m.disk, op.Blob)
				d.c.Lost(op.Blob, kv.RAM)
				d.c.Lost(op.Blob, kv.Disk)
			}
			d.m.remove(op.Seq, 0, kv.End)
			d.c.Failed(op.Seq)
		}
	}
	return nil
}

// ordered says that what is planned for others comes before what can fail on seq.
func ordered(ops []kv.Op, seq kv.Seq) error {
	begun := false
	for _, op := range ops {
		switch {
		case op.Seq == seq && op.Kind != kv.Save:
			begun = true
		case begun && op.Seq != seq && op.Seq != kv.NoSeq:
			return fmt.Errorf("%v of %d behind what is planned for %d", op.Kind, op.Seq, seq)
		}
	}
	return nil
}

func (d *driver) busy() (kv.Seq, bool) { return d.pick(kv.Busy) }

func (d *driver) pick(state kv.SeqState) (kv.Seq, bool) {
	first := d.choose(d.cfg.Sequences)
	for i := range d.cfg.Sequences {
		seq := kv.Seq((first + i) % d.cfg.Sequences)
		if d.c.Sequence(seq).State == state {
			return seq, true
		}
	}
	return kv.NoSeq, false
}

// acceptable are refusals that leave everything as it was.
func acceptable(err error) bool {
	return errors.Is(err, kv.ErrNoRoom) || errors.Is(err, kv.ErrTooLong) ||
		errors.Is(err, kv.ErrPolicy) || errors.Is(err, kv.ErrUnsupported)
}

// refused says that a refusal was for an acceptable reason, and has changed nothing.
func (d *driver) refused(op string, before kv.Stats, ops []kv.Op, err error) error {
	if after := d.c.Stats(); !acceptable(err) || before != after || len(ops) > 0 {
		return fmt.Errorf("%s: %w; before %+v, after %+v, %v", op, err, before, after, ops)
	}
	d.counts["refused "+op]++
	return nil
}

func (d *driver) begin() error {
	p := d.newPrompt()
	r := kv.Request{Key: p.key, Tokens: p.tokens, Limit: len(p.tokens) + d.choose(30)}
	r.System = d.choose(len(p.tokens) + 1)
	r.Marks = []int{d.choose(len(p.tokens) + 1)}
	if d.policy != nil {
		r.Policy = d.policy()
	}
	best, quiet := len(p.tokens), false
	if d.choose(4) == 0 {
		best, quiet = d.best(r), d.quiet(r)
	}
	before := d.c.Stats()
	a, err := d.c.Begin(r)
	if err != nil {
		if !acceptable(err) || before != d.c.Stats() {
			return fmt.Errorf("begin: %w; before %+v, after %+v", err, before, d.c.Stats())
		}
		d.counts["refused"]++
		return nil
	}
	d.counts["begin "+a.Source.String()]++
	switch {
	case a.Reused >= len(p.tokens) || a.Reused-a.Moved > best:
		return fmt.Errorf("begin: reused %d (%d moved) of %d, %d are there",
			a.Reused, a.Moved, len(p.tokens), best)
	case quiet && a.Reused < best:
		return fmt.Errorf("begin: reused %d of %d, %d are there", a.Reused, len(p.tokens), best)
	}
	d.rest[a.Seq] = p.tokens[a.Reused:]
	if err := ordered(a.Ops, a.Seq); err != nil {
		return err
	}
	return d.do(a.Ops)
}

// best is the longest start of the prompt that anybody holds as a cold run would have it.
func (d *driver) best(r kv.Request) int {
	best := 0
	for seq := range kv.Seq(d.cfg.Sequences) {
		info := d.c.Sequence(seq)
		best = max(best, same(r.Key, d.c.Key(seq), r.Tokens, d.c.Tokens(seq)[:info.Exact]))
	}
	for b := range d.c.Blobs() {
		if !b.Partial {
			best = max(best, same(r.Key, b.Key, r.Tokens, b.Tokens))
		}
	}
	return min(best, len(r.Tokens)-1)
}

// quiet says that nothing keeps the best from being reached: there is room, and any state can be
// cut.
func (d *driver) quiet(r kv.Request) bool {
	st := d.c.Stats()
	need := st.Cells + st.CellsPromised + r.Limit + d.cfg.Cells/4
	return d.clean && st.Sequences[kv.Free] > 0 && !r.Policy.NoReuse &&
		(d.cfg.Layout == kv.Streams || need <= d.cfg.Cells)
}

// advance computes a chunk of the prompt, or some tokens of the answer.
func (d *driver) advance() error {
	seq, ok := d.busy()
	if !ok {
		return nil
	}
	chunk := d.rest[seq]
	if len(chunk) == 0 {
		chunk = d.tokens(1 + d.choose(4))
	}
	chunk = chunk[:min(len(chunk), 1+d.choose(24))]
	if next := d.c.NextCheckpoint(seq); next > 0 {
		chunk = chunk[:min(len(chunk), next-d.c.Length(seq))]
	}
	plan, err := d.c.Reserve(seq, len(chunk))
	if err != nil {
		if !acceptable(err) {
			return fmt.Errorf("reserve: %w", err)
		}
		d.counts["full"]++
		return d.end(seq)
	}
	if err := ordered(plan.Ops, seq); err != nil {
		return err
	}
	if err := d.do(plan.Ops); err != nil {
		return err
	}
	if plan.Dropped > 0 {
		d.counts["dropped"]++
	}
	if d.c.Length(seq) != plan.Length { // an operation failed
		delete(d.rest, seq)
		return nil
	}
	if len(plan.Again) > 0 {
		d.counts["again"]++
		d.rest[seq] = slices.Concat(plan.Again, d.rest[seq])
		return nil
	}
	if err := d.m.compute(seq, chunk); err != nil {
		return fmt.Errorf("compute: %w", err)
	}
	if err := d.c.Append(seq, chunk); err != nil {
		return err
	}
	d.rest[seq] = d.rest[seq][min(len(chunk), len(d.rest[seq])):]
	if next := d.c.NextCheckpoint(seq); d.choose(8) > 0 || next > 0 {
		return d.do(d.c.Checkpoint(seq))
	}
	return nil
}

func (d *driver) end(seq kv.Seq) error {
	if n := d.c.Length(seq); n > 0 {
		p := past{d.c.Key(seq), slices.Clone(d.c.Tokens(seq)[:max(1, d.c.Sequence(seq).Exact)])}
		if len(d.history) < 40 {
			d.history = append(d.history, p)
		} else {
			d.history[d.choose(40)] = p
		}
	}
	delete(d.rest, seq)
	d.c.End(seq)
	return nil
}

func (d *driver) truncate() error {
	seq, ok := d.busy()
	if !ok {
		return nil
	}
	length := d.c.Length(seq)
	n := length - min(length, d.choose(6))
	plan, err := d.c.Truncate(seq, n)
	if err != nil {
		return fmt.Errorf("truncate: %w", err)
	}
	if plan.Length+len(plan.Again) != n {
		return fmt.Errorf("truncate to %d: %+v", n, plan)
	}
	d.rest[seq] = slices.Concat(plan.Again, d.rest[seq])
	return d.do(plan.Ops)
}

func (d *driver) park() error {
	state := kv.SeqState(1 + d.choose(2))
	seq, ok := d.pick(state)
	if !ok || d.c.Length(seq) == 0 {
		return nil
	}
	before := d.c.Stats()
	id, ops, err := d.c.Park(seq)
	if err != nil {
		return d.refused("park", before, ops, err)
	}
	d.counts["park"]++
	if state == kv.Busy {
		d.parked[id] = d.rest[seq]
	}
	delete(d.rest, seq)
	return d.do(ops)
}

func (d *driver) resume() error {
	if len(d.parked) == 0 {
		return nil
	}
	id := slices.Min(slices.Collect(maps.Keys(d.parked)))
	if d.choose(3) == 0 {
		d.c.Release(id)
		delete(d.parked, id)
		return d.do(d.c.Tidy())
	}
	a, err := d.c.Resume(id)
	switch {
	case errors.Is(err, kv.ErrNoRoom):
		return nil
	case errors.Is(err, kv.ErrUnknown):
		delete(d.parked, id)
		return nil
	case err != nil:
		return fmt.Errorf("resume: %w", err)
	}
	d.counts["resume"]++
	if err := ordered(a.Ops, a.Seq); err != nil {
		return err
	}
	d.rest[a.Seq] = d.parked[id]
	delete(d.parked, id)
	return d.do(a.Ops)
}

// saved does one of the things that concern saved state.
func (d *driver) saved() error {
	switch d.choose(5) {
	case 0:
		return d.do(d.c.Tidy())
	case 1:
		if seq, ok := d.pick(kv.SeqState(1 + d.choose(2))); ok {
			before := d.c.Stats()
			_, ops, err := d.c.Save(seq)
			if err != nil && !errors.Is(err, kv.ErrUnknown) {
				return d.refused("save", before, ops, err)
			}
			return d.do(ops)
		}
	case 2:
		if ids := blobIDs(d.m.ram); len(ids) > 0 && d.choose(4) == 0 && !d.clean {
			id := ids[d.choose(len(ids))]
			delete(d.m.ram, id)
			d.c.Lost(id, kv.RAM)
		}
	default:
		if len(d.m.spills) > 0 {
			id := d.m.spills[0]
			d.m.spills = d.m.spills[1:]
			if d.choose(8) == 0 {
				delete(d.m.disk, id)
				d.c.SpillFailed(id)
				return nil
			}
			return d.do(d.c.Spilled(id, max(1, d.m.disk[id].size())))
		}
	}
	return nil
}

func (b *saved) size() int64 {
	if b == nil {
		return 0
	}
	return b.bytes
}

// pin pins the start of something earlier for a while.
func (d *driver) pin() error {
	if len(d.history) == 0 {
		return nil
	}
	p := d.history[d.choose(len(d.history))]
	path := p.tokens[:min(len(p.tokens), 20)]
	if d.choose(2) == 0 {
		if err := d.c.Unpin(p.key, path); err != nil && !errors.Is(err, kv.ErrUnknown) {
			return err
		}
		return nil
	}
	if err := d.c.Pin(p.key, path); err != nil && !acceptable(err) {
		return err
	}
	return nil
}

// step does one thing and checks what is cheap to check.
func (d *driver) step() error {
	var err error
	switch d.choose(20) {
	case 0, 1, 2:
		err = d.begin()
	case 3, 4:
		if seq, ok := d.busy(); ok {
			err = d.end(seq)
		}
	case 5:
		err = d.truncate()
	case 6:
		err = d.park()
	case 7:
		err = d.resume()
	case 8, 9:
		err = d.saved()
	case 10:
		if d.choose(4) == 0 {
			err = d.pin()
		}
	case 11:
		if seq, ok := d.pick(kv.SeqState(1 + d.choose(2))); ok && d.choose(4) == 0 {
			delete(d.rest, seq)
			err = d.do(d.c.Drop(seq))
		}
	default:
		err = d.advance()
	}
	if err != nil {
		return err
	}
	st := d.c.Stats()
	switch {
	case d.cfg.Layout == kv.Shared && st.Cells+st.CellsPromised > d.cfg.Cells:
		return fmt.Errorf("%+v", st)
	case st.Cells != d.m.used:
		return fmt.Errorf("%d cells in the books, %d in use", st.Cells, d.m.used)
	case st.RAM.Bytes > d.cfg.RAMBytes || st.Disk.Bytes > d.cfg.DiskBytes:
		return fmt.Errorf("%+v", st)
	}
	return nil
}

// check compares everything.
func (d *driver) check() error {
	if err := d.do(d.c.Pending()); err != nil {
		return err
	}
	for seq := range kv.Seq(d.cfg.Sequences) {
		if err := d.m.verify(d.c, seq); err != nil {
			return err
		}
	}
	ram, disk := []kv.BlobID(nil), []kv.BlobID(nil)
	for b := range d.c.Blobs() {
		if b.RAM > 0 {
			ram = append(ram, b.ID)
		}
		if b.Disk > 0 {
			disk = append(disk, b.ID)
		}
	}
	flying := slices.DeleteFunc(blobIDs(d.m.disk), func(id kv.BlobID) bool {
		return slices.Contains(d.m.spills, id)
	})
	switch {
	case !slices.Equal(ram, blobIDs(d.m.ram)):
		return fmt.Errorf("in RAM are %v, in the books %v", blobIDs(d.m.ram), ram)
	case !slices.Equal(disk, flying):
		return fmt.Errorf("on disk are %v, in the books %v", flying, disk)
	}
	return errors.Join(d.held(), d.c.Check())
}
