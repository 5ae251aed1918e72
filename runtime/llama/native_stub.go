//go:build !cgo

package llama

// Without cgo no native value can be made: Start, LoadModel and NewThreads answer Missing, so
// the rest is never reached and exists for the compiler only.

type (
	modelHandle   struct{}
	loraHandle    struct{}
	threadsHandle struct{}
	contextHandle struct{}
	samplerHandle struct{}
	drafterHandle struct{}
)

func nativeStart(int32) error { return errMissing("start") }

// Distribute spreads models over memory nodes: there are none here.
func Distribute() {}

// Version is llama.cpp's version and commit and the CPU features it uses.
func Version() (version, commit, system string, err error) {
	return "", "", "", errMissing("version")
}

// Devices lists what llama.cpp can compute on, in its own order.
func Devices() ([]Device, error) { return nil, errMissing("devices") }

func loadModel(*ModelParams, *progress) (modelHandle, error) {
	return modelHandle{}, errMissing("load")
}
func freeModel(modelHandle)                                   {}
func modelInfo(modelHandle) ModelInfo                         { return ModelInfo{} }
func modelMeta(modelHandle, string) (string, bool)            { return "", false }
func tokenize(modelHandle, string, []Token, bool, bool) int   { return 0 }
func piece(modelHandle, Token, []byte, bool) int              { return 0 }
func detokenize(modelHandle, []Token, []byte, bool, bool) int { return 0 }
func tokenEOG(modelHandle, Token) bool                        { return false }
func tokenAttr(modelHandle, Token) int                        { return 0 }

func loadLora(modelHandle, string) (loraHandle, error) {
	return loraHandle{}, errMissing("lora")
}

func freeLora(loraHandle) {}

func newThreads(ThreadsParams) (threadsHandle, error) {
	return threadsHandle{}, errMissing("threads")
}

func freeThreads(threadsHandle) {}
func newContext(modelHandle, *ContextParams) (contextHandle, error) {
	return contextHandle{}, errMissing("context")
}
func positions(modelHandle) int                            { return 0 }
func freeContext(contextHandle)                            {}
func contextInfo(contextHandle) ContextInfo                { return ContextInfo{} }
func batchArrays(contextHandle) arrays                     { return arrays{} }
func abort(contextHandle, bool)                            {}
func setThreads(contextHandle, int, int)                   {}
func setLoras(contextHandle, []loraHandle, []float32) bool { return false }
func attach(contextHandle, threadsHandle, threadsHandle)   {}

func decode(contextHandle, int) error {
	return errMissing("decode")
}

func encode(contextHandle, int) error {
	return errMissing("encode")
}

func syncContext(contextHandle)                                        {}
func step(contextHandle, modelHandle, int, []Pick) error               { return errMissing("step") }
func logits(contextHandle, int, int) []float32                         { return nil }
func setEmbeddings(contextHandle, bool)                                {}
func embeddingAt(contextHandle, int, []float32) bool                   { return false }
func embedding(contextHandle, Seq, []float32) bool                     { return false }
func logprobs(contextHandle, int, Token, []TopLogprob) (float32, bool) { return 0, false }
func clearMemory(contextHandle)                                        {}
func seqRemove(contextHandle, Seq, Pos, Pos) bool                      { return false }
func seqCopy(contextHandle, Seq, Seq, Pos, Pos)                        {}
func seqKeep(contextHandle, Seq)                                       {}
func seqAdd(contextHandle, Seq, Pos, Pos, Pos)                         {}
func seqDivide(contextHandle, Seq, Pos, Pos, int)                      {}
func seqPosMin(contextHandle, Seq) Pos                                 { return -1 }
func seqPosMax(contextHandle, Seq) Pos                                 { return -1 }
func stateSize(contextHandle, Seq, StateFlags) int                     { return 0 }
func stateGet(contextHandle, Seq, []byte, StateFlags) int              { return 0 }
func stateSet(contextHandle, Seq, []byte, StateFlags) int              { return 0 }
func memoryUse(contextHandle) []MemoryUse                              { return nil }
func newSampler(modelHandle, *SamplerParams) (samplerHandle, error) {
	return samplerHandle{}, errMissing("sampler")
}
func freeSampler(samplerHandle)                               {}
func samplerSeed(samplerHandle) uint32                        { return 0 }
func acceptToken(samplerHandle, Token, bool) error            { return errMissing("accept") }
func sample(contextHandle, samplerHandle, int) (Token, error) { return 0, errMissing("sample") }

func newDrafter(DrafterParams) (drafterHandle, error) {
	return drafterHandle{}, errMissing("drafter")
}
func freeDrafter(drafterHandle)              {}
func resetDrafter(drafterHandle)             {}
func feedDrafter(drafterHandle, []Token)     {}
func draftTokens(drafterHandle, []Token) int { return 0 }
func draftAccepted(drafterHandle, int)       {}

// NativeStamp is empty: there is no native build in this program.
func NativeStamp() string { return "" }

// NativeFlags is empty, too.
func NativeFlags() string { return "" }

// HugeBytes is 0, too.
func HugeBytes() uint64 { return 0 }
