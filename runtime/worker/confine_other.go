//go:build !linux

package worker

// apply names what is missing here.
func (c *Confinement) apply(string) (notes []string, err error) {
	if c.Off {
		return nil, nil
	}
	return []string{"the model's process is not confined: this system has no means that norion uses"},
		nil
}
