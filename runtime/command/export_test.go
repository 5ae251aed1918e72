package command

// Runs says whether the program still takes requests.
func Runs(b *Backend) bool {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	return b.p != nil && b.p.runs()
}

// Kill ends the program.
func Kill(b *Backend) { kill(b.p.cmd) }

// Check reads a line and checks what is in it.
func Check(line []byte) error {
	a, err := parse(line)
	switch {
	case err != nil:
		return err
	case a.Error != nil:
		return a.Error.err("generate")
	case a.Info != nil:
		return a.Info.validate()
	case a.Chunk != nil:
		return a.Chunk.validate(a.Chunk.Tokens)
	}
	return nil
}
