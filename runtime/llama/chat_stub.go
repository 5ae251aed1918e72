//go:build !cgo

package llama

type (
	chatHandle   struct{}
	parserHandle struct{}
)

func newChat(*modelHandle, string, string, string) (chatHandle, error) {
	return chatHandle{}, errMissing("chat")
}
func freeChat(chatHandle)                           {}
func chatInfo(chatHandle) ([]byte, error)           { return nil, errMissing("chat") }
func renderChat(chatHandle, string) ([]byte, error) { return nil, errMissing("render") }
func newParser(string) (parserHandle, error) {
	return parserHandle{}, errMissing("parser")
}
func freeParser(parserHandle)                                {}
func parseAnswer(parserHandle, string, bool) ([]byte, error) { return nil, errMissing("parse") }
func schemaGrammar(string) ([]byte, error)                   { return nil, errMissing("schema") }
func templateCount() int                                     { return 0 }
func templateAt(int) (name, text string)                     { return "", "" }
