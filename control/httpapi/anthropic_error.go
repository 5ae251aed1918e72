package httpapi

import "net/http"

// statusOverloaded is Anthropic's own code for a server that has too much to do.
const statusOverloaded = 529

// anthropicFault is an error in Anthropic's shape.
type anthropicFault struct {
	Type  string `json:"type"`
	Error struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	} `json:"error"`
	RequestID string `json:"request_id"`
}

// anthropicError gives the status and body of an error in Anthropic's shape. The field at fault,
// for which it has no place, begins the message.
func anthropicError(f *fault, id string) (int, anthropicFault) {
	out := anthropicFault{Type: "error", RequestID: id}
	status := f.status
	if status == http.StatusServiceUnavailable {
		status = statusOverloaded
	}
	out.Error.Type = map[int]string{
		http.StatusUnauthorized:          "authentication_error",
		http.StatusForbidden:             "permission_error",
		http.StatusNotFound:              "not_found_error",
		http.StatusRequestEntityTooLarge: "request_too_large",
		http.StatusTooManyRequests:       "rate_limit_error",
		statusOverloaded:                 "overloaded_error",
	}[status]
	if out.Error.Type == "" {
		out.Error.Type = "invalid_request_error"
		if status >= http.StatusInternalServerError {
			out.Error.Type = "api_error"
		}
	}
	out.Error.Message = f.message
	if f.param != "" {
		out.Error.Message = f.param + ": " + f.message
	}
	return status, out
}
