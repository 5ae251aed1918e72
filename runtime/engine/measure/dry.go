package measure

import (
	"context"

	"github.com/norion/norion/hw/plan"
	"github.com/norion/norion/runtime/engine"
)

// Dry counts what a plan's devices would hold, without allocating it. The buffer of logits is the
// plan's own figure, since it grows with what is asked. The options name the model. Errors: those
// of engine.DryLoad.
func Dry(ctx context.Context, p plan.Plan, o engine.Options) (plan.Load, error) {
	o.Apply(p)
	all, err := engine.DryLoad(ctx, o)
	if err != nil {
		return plan.Load{}, err
	}
	counted := Bytes(all)
	l := plan.Load{Settings: p.Settings(), Source: plan.SourceDryLoad}
	for _, d := range p.Devices {
		b := counted[d.Name]
		b.Output = d.Bytes.Output
		l.Devices = append(l.Devices, b)
	}
	return l, nil
}
