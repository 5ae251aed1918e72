package gguf

// states gives recurrent layers the size of their state: the convolution's last inputs and the
// state proper, both in f32, as n_embd_r and n_embd_s of llama.cpp's hyperparameters count them.
func (r *shapeReader) states(s *Shape) {
	bytes := int64(0)
	for i := range s.Layers {
		l := &s.Layers[i]
		if !l.Recurrent {
			continue
		}
		if bytes == 0 {
			bytes = times(4, r.stateElements(s))
		}
		l.StateBytes = bytes
	}
}

func (r *shapeReader) stateElements(s *Shape) int64 {
	width := int64(s.EmbeddingLength)
	small := func(key string, otherwise int) int64 {
		return int64(r.integer(key, headMax, otherwise))
	}
	if head := small("wkv.head_size", 0); head > 0 {
		return width * (small("token_shift_count", 2) + head)
	}
	if kept := small("shortconv.l_cache", 0); kept > 0 {
		return width * (kept - 1)
	}
	heads := int64(s.Layers[0].Heads)
	if s.Architecture == "minimax-01" {
		head := int64(s.Layers[0].KeyLength)
		return head * head * heads
	}
	kernel := small("ssm.conv_kernel", 0)
	if head := small("kda.head_dim", 0); head > 0 {
		if kernel == 0 {
			kernel = 4
		}
		return (3*(kernel-1) + head) * head * heads
	}
	inner, state := small("ssm.inner_size", 0), small("ssm.state_size", 0)
	inputs := inner + 2*small("ssm.group_count", 0)*state
	return saturate(times(max(0, kernel-1), inputs), state*inner)
}
