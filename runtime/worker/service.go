package worker

import (
	"context"

	"google.golang.org/grpc"

	"github.com/norion/norion/runtime/infer"
)

// describe lists what the child can be asked.
func describe() *grpc.ServiceDesc {
	return &grpc.ServiceDesc{
		ServiceName: service, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			answers("ping", func(context.Context, *server, *nothing) (nothing, error) {
				return nothing{}, nil
			}),
			answers("score", func(ctx context.Context, s *server, m *scoring) (infer.Scores, error) {
				m.Request.Deadline = at(m.Left)
				return with(s, func(b infer.Backend) (infer.Scores, error) {
					return b.Score(ctx, m.Request)
				})
			}),
			answers("embed", func(ctx context.Context, s *server, m *[]string) ([][]float32, error) {
				return with(s, func(b infer.Backend) ([][]float32, error) { return b.Embed(ctx, *m) })
			}),
			answers("tokenize", func(ctx context.Context, s *server, m *tokenization) (
				[]infer.Token, error,
			) {
				return with(s, func(b infer.Backend) ([]infer.Token, error) {
					return b.Tokenize(ctx, m.Text, m.Options)
				})
			}),
			answers("count", func(ctx context.Context, s *server, m *infer.Request) (int, error) {
				return with(s, able("count", func(b infer.Counter) (int, error) {
					return b.CountTokens(ctx, *m)
				}))
			}),
			answers("detokenize", func(ctx context.Context, s *server, m *[]infer.TokenID) (
				[]byte, error,
			) {
				return with(s, able("detokenize", func(b infer.Detokenizer) ([]byte, error) {
					return b.Detokenize(ctx, *m)
				}))
			}),
			answers("stats", func(ctx context.Context, s *server, _ *nothing) (infer.Stats, error) {
				return with(s, able("stats", func(b infer.Observer) (infer.Stats, error) {
					return b.Stats(ctx)
				}))
			}),
			answers("close", func(_ context.Context, s *server, _ *nothing) (nothing, error) {
				return with(s, func(b infer.Backend) (nothing, error) { return nothing{}, b.Close() })
			}),
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "load", ServerStreams: true, Handler: streamLoad},
			{StreamName: "generate", ServerStreams: true, Handler: streamAnswer},
		},
	}
}

// answers describes a call with one question and one answer. An error is part of the answer.
func answers[In, Out any](
	op string, f func(context.Context, *server, *In) (Out, error),
) grpc.MethodDesc {
	return grpc.MethodDesc{
		MethodName: op,
		Handler: func(
			s any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor,
		) (any, error) {
			var in In
			if err := read(&in); err != nil {
				return nil, err
			}
			out, err := f(ctx, s.(*server), &in)
			return &reply[Out]{out, faultOf(op, err)}, nil
		},
	}
}

// with asks the loaded model.
func with[Out any](s *server, f func(infer.Backend) (Out, error)) (out Out, err error) {
	b, err := s.get()
	if err != nil {
		return out, err
	}
	return f(b)
}

// able asks a model for what not every backend can do.
func able[B, Out any](op string, f func(B) (Out, error)) func(infer.Backend) (Out, error) {
	return func(b infer.Backend) (out Out, err error) {
		can, ok := b.(B)
		if !ok {
			return out, &infer.Error{Op: op, Kind: infer.KindUnsupported}
		}
		return f(can)
	}
}

// streamLoad loads the model and tells how far it has come.
func streamLoad(s any, stream grpc.ServerStream) error {
	var m loading
	if err := stream.RecvMsg(&m); err != nil {
		return err
	}
	told := -1
	info, err := s.(*server).load(stream.Context(), &m, func(done float32) {
		if percent := int(100 * done); percent != told {
			told = percent
			_ = stream.SendMsg(&loadEvent{Progress: done}) // without a reader the context ends, too
		}
	})
	return stream.SendMsg(&loadEvent{Progress: 1, Info: info, Fault: faultOf("load", err)})
}

// streamAnswer generates. Sending waits for the reader once streamBytesMax are on their way, and so
// does the engine; it ends when the parent gives the call up.
func streamAnswer(s any, stream grpc.ServerStream) error {
	var m generation
	if err := stream.RecvMsg(&m); err != nil {
		return err
	}
	m.Request.Deadline = at(m.Left)
	b, err := s.(*server).get()
	if err != nil {
		return stream.SendMsg(&piece{Fault: faultOf("generate", err)})
	}
	for c, err := range b.Generate(stream.Context(), m.Request) {
		if err := stream.SendMsg(&piece{Chunk: c, Fault: faultOf("generate", err)}); err != nil {
			return err
		}
	}
	return nil
}
