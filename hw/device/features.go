package device

import (
	"slices"

	"github.com/klauspost/cpuid/v2"
)

// features are those that ggml has kernels for, by the name that Machine uses (ggml's own, in lower
// case), by the kernel's name in proc/cpuinfo and by cpuid's. Sources: CMakeLists.txt and amx in
// ggml/src/ggml-cpu of the pin.
var features = []struct {
	name, kernel string
	id           cpuid.FeatureID
}{
	{"sse42", "sse4_2", cpuid.SSE42},
	{"avx", "avx", cpuid.AVX},
	{"f16c", "f16c", cpuid.F16C},
	{"fma", "fma", cpuid.FMA3},
	{"bmi2", "bmi2", cpuid.BMI2},
	{"avx2", "avx2", cpuid.AVX2},
	{"avx_vnni", "avx_vnni", cpuid.AVXVNNI},
	{"avx512", "avx512f", cpuid.AVX512F},
	{"avx512_vbmi", "avx512vbmi", cpuid.AVX512VBMI},
	{"avx512_vnni", "avx512_vnni", cpuid.AVX512VNNI},
	{"avx512_bf16", "avx512_bf16", cpuid.AVX512BF16},
	{"amx_tile", "amx_tile", cpuid.AMXTILE},
	{"amx_int8", "amx_int8", cpuid.AMXINT8},
	{"amx_bf16", "amx_bf16", cpuid.AMXBF16},
	{"neon", "asimd", cpuid.ASIMD},
	{"fp16", "asimdhp", cpuid.ASIMDHP},
	{"dotprod", "asimddp", cpuid.ASIMDDP},
	{"i8mm", "i8mm", cpuid.I8MM},
	{"sve", "sve", cpuid.SVE},
	{"sve2", "sve2", cpuid.SVE2},
	{"sme", "sme", cpuid.UNKNOWN}, // cpuid.SME is AMD's memory encryption
}

// kernelFeatures picks them from the flags of proc/cpuinfo: what the kernel lets programs use.
func kernelFeatures(flags []string, arch string) []string {
	var out []string
	for _, f := range features {
		if f.name == "sme" && arch != "arm64" { // x86 has a flag of that name, too
			continue
		}
		if slices.Contains(flags, f.kernel) {
			out = append(out, f.name)
		}
	}
	slices.Sort(out)
	return out
}

// processor is what the processor says of itself.
type processor struct {
	name           string
	features       []string
	cores, threads int
	l2, l3         int64
}

// askProcessor asks it, for systems that do not tell.
func askProcessor() processor {
	c := cpuid.CPU
	p := processor{
		name: c.BrandName, cores: c.PhysicalCores, threads: c.LogicalCores,
		l2: int64(max(0, c.Cache.L2)), l3: int64(max(0, c.Cache.L3)),
	}
	for _, f := range features {
		if f.id != cpuid.UNKNOWN && c.Has(f.id) {
			p.features = append(p.features, f.name)
		}
	}
	slices.Sort(p.features)
	return p
}
