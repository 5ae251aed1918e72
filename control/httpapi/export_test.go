package httpapi

// RouteRule is a line of the table as tests see it.
type RouteRule struct{ Method, Path, Rule string }

// Routes lists the table.
func (s *Server) Routes() []RouteRule {
	var out []RouteRule
	for i := range s.routes {
		rt := &s.routes[i]
		out = append(out, RouteRule{rt.method, rt.path, rt.rule.String()})
	}
	return out
}

// Decode is decode.
func Decode(data []byte, into any) error { return decode(data, into) }
