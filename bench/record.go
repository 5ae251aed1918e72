package bench

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Record is the result of one test in llama-bench's form: the same names, in the same order, with
// the same meaning. Times are in nanoseconds, rates in tokens per second.
type Record struct {
	BuildCommit         string    `json:"build_commit"`
	BuildNumber         int       `json:"build_number"`
	CPUInfo             string    `json:"cpu_info"`
	GPUInfo             string    `json:"gpu_info"`
	Backends            string    `json:"backends"`
	ModelFilename       string    `json:"model_filename"`
	ModelType           string    `json:"model_type"`
	ModelSize           int64     `json:"model_size"`
	ModelParams         int64     `json:"model_n_params"`
	Batch               int       `json:"n_batch"`
	MicroBatch          int       `json:"n_ubatch"`
	Threads             int       `json:"n_threads"`
	CPUMask             string    `json:"cpu_mask"`
	CPUStrict           bool      `json:"cpu_strict"`
	Poll                int       `json:"poll"`
	TypeK               string    `json:"type_k"`
	TypeV               string    `json:"type_v"`
	GPULayers           int       `json:"n_gpu_layers"`
	CPUMoE              int       `json:"n_cpu_moe"`
	SplitMode           string    `json:"split_mode"`
	MainGPU             int       `json:"main_gpu"`
	NoKVOffload         bool      `json:"no_kv_offload"`
	Flash               Flash     `json:"flash_attn"`
	Devices             string    `json:"devices"`
	TensorSplit         string    `json:"tensor_split"`
	TensorBuftOverrides string    `json:"tensor_buft_overrides"`
	LoadMode            LoadMode  `json:"load_mode"`
	LazyMode            string    `json:"lazy_mode"`
	Embeddings          bool      `json:"embeddings"`
	NoOpOffload         int       `json:"no_op_offload"`
	NoHost              bool      `json:"no_host"`
	Repack              bool      `json:"repack"`
	FitTarget           int       `json:"fit_target"`
	FitMinCtx           int       `json:"fit_min_ctx"`
	Prompt              int       `json:"n_prompt"`
	Gen                 int       `json:"n_gen"`
	Depth               int       `json:"n_depth"`
	TestTime            time.Time `json:"test_time"`

	SamplesNs []int64 `json:"samples_ns"`
}

// Rates gives tokens per second of each sample.
func (r *Record) Rates() []float64 {
	out := make([]float64, len(r.SamplesNs))
	for i, ns := range r.SamplesNs {
		out[i] = 1e9 * float64(r.Prompt+r.Gen) / float64(ns)
	}
	return out
}

// Rate is the mean of Rates, 0 without samples: the figure that llama-bench prints.
func (r *Record) Rate() float64 { return mean(r.Rates()) }

func mean(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	var sum float64
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// deviation is the sample standard deviation, computed as llama-bench computes it so that equal
// samples print equal digits.
func deviation(v []float64) float64 {
	if len(v) < 2 {
		return 0
	}
	m, n := mean(v), float64(len(v))
	var squares float64
	for _, x := range v {
		squares += x * x
	}
	return math.Sqrt(max(0, squares/(n-1)-m*m*n/(n-1)))
}

// fieldKind says how a field is written in JSON.
type fieldKind int

const (
	fieldNumber fieldKind = iota
	fieldText
	fieldBool
)

// field is one column: its name, its kind and its value as llama-bench spells it.
type field struct {
	name string
	kind fieldKind
	text string
}

// fields lists the columns in order.
func (r *Record) fields() []field {
	n := func(name string, v int64) field {
		return field{name, fieldNumber, strconv.FormatInt(v, 10)}
	}
	i := func(name string, v int) field { return n(name, int64(v)) }
	s := func(name, v string) field { return field{name, fieldText, v} }
	b := func(name string, v bool) field { return field{name, fieldBool, bit(v)} }
	f := func(name string, v float64) field {
		return field{name, fieldNumber, strconv.FormatFloat(v, 'f', 6, 64)}
	}
	ns := make([]float64, len(r.SamplesNs))
	var sum int64
	for i, v := range r.SamplesNs {
		ns[i] = float64(v)
		sum += v
	}
	return []field{
		s("build_commit", r.BuildCommit), i("build_number", r.BuildNumber),
		s("cpu_info", r.CPUInfo), s("gpu_info", r.GPUInfo), s("backends", r.Backends),
		s("model_filename", r.ModelFilename), s("model_type", r.ModelType),
		n("model_size", r.ModelSize), n("model_n_params", r.ModelParams),
		i("n_batch", r.Batch), i("n_ubatch", r.MicroBatch), i("n_threads", r.Threads),
		s("cpu_mask", r.CPUMask), b("cpu_strict", r.CPUStrict), i("poll", r.Poll),
		s("type_k", r.TypeK), s("type_v", r.TypeV), i("n_gpu_layers", r.GPULayers),
		i("n_cpu_moe", r.CPUMoE), s("split_mode", r.SplitMode), i("main_gpu", r.MainGPU),
		b("no_kv_offload", r.NoKVOffload), i("flash_attn", int(r.Flash)),
		s("devices", r.Devices), s("tensor_split", r.TensorSplit),
		s("tensor_buft_overrides", r.TensorBuftOverrides), s("load_mode", string(r.LoadMode)),
		s("lazy_mode", r.LazyMode), b("embeddings", r.Embeddings),
		i("no_op_offload", r.NoOpOffload), b("no_host", r.NoHost), b("repack", r.Repack),
		i("fit_target", r.FitTarget), i("fit_min_ctx", r.FitMinCtx),
		i("n_prompt", r.Prompt), i("n_gen", r.Gen), i("n_depth", r.Depth),
		s("test_time", r.TestTime.UTC().Format("2006-01-02T15:04:05Z")),
		n("avg_ns", sum/int64(max(1, len(r.SamplesNs)))), n("stddev_ns", int64(deviation(ns))),
		f("avg_ts", r.Rate()), f("stddev_ts", deviation(r.Rates())),
	}
}

// samples spells the two lists of samples as llama-bench does: rates with six digits.
func (r *Record) samples() (ns, rates string) {
	var a, b []string
	for i, rate := range r.Rates() {
		a = append(a, strconv.FormatInt(r.SamplesNs[i], 10))
		b = append(b, strconv.FormatFloat(rate, 'g', 6, 64))
	}
	return strings.Join(a, ", "), strings.Join(b, ", ")
}
