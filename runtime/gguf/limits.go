package gguf

// Limits of what is read. Each is far above any published model and low enough that a hostile
// file costs neither memory nor time: retained memory is proportional to the header bytes that
// are really present, and arrays and strings are only measured, not copied.
const (
	KeysMax          = 4096      // metadata keys in one file
	KeyBytesMax      = 1024      // bytes of one key
	StringBytesMax   = 64 << 20  // bytes of one string value (tokenizer.huggingface.json: 35 MB)
	ArrayElementsMax = 1 << 24   // elements of one array
	ArrayDepthMax    = 1         // arrays of arrays are in the format, but llama.cpp refuses them
	TensorsMax       = 1 << 16   // tensors in one file
	TensorNameMax    = 63        // bytes of a tensor name: ggml keeps 64 with the final NUL
	DimsMax          = 4         // dimensions of a tensor, as in ggml
	HeaderBytesMax   = 512 << 20 // bytes before the tensor data
	ShardsMax        = 1024      // files of a split model
	LayersMax        = 512       // block_count, as in llama.cpp
	ExpertsMax       = 1024      // expert_count, as in llama.cpp
	VocabularyMax    = 1 << 21   // tokens
	TemplateBytesMax = 4 << 20   // bytes of one chat template
	TemplatesMax     = 64        // chat templates of one model

	alignmentDefault = 32
	readBufferBytes  = 64 << 10
)
