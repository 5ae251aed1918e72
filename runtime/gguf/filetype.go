package gguf

import (
	"cmp"
	"slices"
)

// fileTypes names general.file_type as llama.cpp prints it.
var fileTypes = [...]string{
	0: "all F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1",
	10: "Q2_K - Medium", 11: "Q3_K - Small", 12: "Q3_K - Medium", 13: "Q3_K - Large",
	14: "Q4_K - Small", 15: "Q4_K - Medium", 16: "Q5_K - Small", 17: "Q5_K - Medium", 18: "Q6_K",
	19: "IQ2_XXS - 2.0625 bpw", 20: "IQ2_XS - 2.3125 bpw", 21: "Q2_K - Small",
	22: "IQ3_XS - 3.3 bpw", 23: "IQ3_XXS - 3.0625 bpw", 24: "IQ1_S - 1.5625 bpw",
	25: "IQ4_NL - 4.5 bpw", 26: "IQ3_S - 3.4375 bpw", 27: "IQ3_S mix - 3.66 bpw",
	28: "IQ2_S - 2.5 bpw", 29: "IQ2_M - 2.7 bpw", 30: "IQ4_XS - 4.25 bpw", 31: "IQ1_M - 1.75 bpw",
	32: "BF16", 36: "TQ1_0 - 1.69 bpw ternary", 37: "TQ2_0 - 2.06 bpw ternary",
	38: "MXFP4 MoE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}

// FileType returns llama.cpp's name of general.file_type, e.g. "Q4_K - Medium"; "unknown" for a
// number that it does not have, "" where the file does not say.
func (f *File) FileType() string {
	v, err := f.Uint("general.file_type")
	if err != nil {
		return ""
	}
	if v < uint64(len(fileTypes)) && fileTypes[v] != "" {
		return fileTypes[v]
	}
	return "unknown"
}

// TypeShare is how much of a model has one tensor type.
type TypeShare struct {
	Type     string `json:"type"` // ggml's name, e.g. "q4_K"
	Tensors  int    `json:"tensors"`
	Elements int64  `json:"elements"`
	Bytes    int64  `json:"bytes"`
}

// Mix returns the share of each tensor type, the largest in bytes first.
func (f *File) Mix() []TypeShare {
	var all []TypeShare
	at := map[TensorType]int{}
	for _, t := range f.tensors {
		i, ok := at[t.Type]
		if !ok {
			i = len(all)
			at[t.Type] = i
			all = append(all, TypeShare{Type: t.Type.String()})
		}
		all[i].Tensors++
		all[i].Elements = saturate(all[i].Elements, t.Elements())
		all[i].Bytes += t.Bytes
	}
	slices.SortStableFunc(all, func(a, b TypeShare) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Type, b.Type))
	})
	return all
}
