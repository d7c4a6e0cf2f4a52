package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
)

// Config configures an Orchestrator.
type Config struct {
	// Logger defaults to slog.Default().
	Logger *slog.Logger
	// RecoverAfter is how long another process waits with an instance of Execute whose
	// process seems to have died: at least half of it and at most all of it, and a
	// quarter until the next look, after its last transition and the time that its
	// calls may take. A call without a timeout must end in half of it, or it may be
	// made twice at a time. The clocks of all processes have to agree that well.
	// Defaults to a minute.
	RecoverAfter time.Duration
	// CacheSize is how many instances are remembered, so that their next transition
	// need not read them. Defaults to 1,024; negative means none.
	CacheSize int
	// Observer, if set, is told about every transition after it is stored, in the
	// goroutine that made it, which it must not hold up. It may be called
	// concurrently.
	Observer func(Observation)
}

// Orchestrator runs sagas. Any number of them, in any processes, may share a
// store; each event and timer is handled by one. It is safe for concurrent use.
type Orchestrator struct {
	store  Store
	cfg    Config
	plans  map[string][]*blueprint // by name, the newest version first
	cache  *cache
	origin *origin
}

// NewOrchestrator returns an orchestrator of the given definitions, several
// versions of one saga among them, or all that is wrong with them.
func NewOrchestrator(store Store, cfg Config, definitions ...Untyped) (*Orchestrator, error) {
	o := &Orchestrator{store: store, cfg: cfg, plans: map[string][]*blueprint{}, origin: &origin{}}
	if o.cfg.Logger == nil {
		o.cfg.Logger = slog.Default()
	}
	if o.cfg.RecoverAfter == 0 {
		o.cfg.RecoverAfter = time.Minute
	}
	if o.cfg.CacheSize == 0 {
		o.cfg.CacheSize = 1024
	}
	o.cache = newCache(o.cfg.CacheSize)
	var errs []error
	if cfg.RecoverAfter < 0 {
		errs = append(errs, fmt.Errorf("RecoverAfter must be positive, got %v", cfg.RecoverAfter))
	}
	if store == nil {
		errs = append(errs, errors.New("the store is nil"))
	}
	for _, d := range definitions {
		errs = append(errs, o.add(d))
	}
	if len(definitions) == 0 {
		errs = append(errs, errors.New("there is no definition"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("saga: orchestrator: %w", err)
	}
	return o, nil
}

func (o *Orchestrator) add(d Untyped) error {
	b, err := checked(d)
	if err != nil {
		return err
	}
	if o.plan(b.name, b.version) != nil {
		return fmt.Errorf("saga %q: version %d is given twice", b.name, b.version)
	}
	all := append(o.plans[b.name], b)
	slices.SortFunc(all, func(a, b *blueprint) int { return b.version - a.version })
	o.plans[b.name] = all
	return nil
}

// newest is the definition of new instances, nil for a saga that is not known.
func (o *Orchestrator) newest(saga string) *blueprint {
	if all := o.plans[saga]; len(all) > 0 {
		return all[0]
	}
	return nil
}

func (o *Orchestrator) plan(saga string, version int) *blueprint {
	for _, b := range o.plans[saga] {
		if b.version == version {
			return b
		}
	}
	return nil
}

// Attach has the service handle the events of the sagas. Each saga is a consumer
// group of its own, "<service>.<saga>". When the service starts, the definitions
// are compared with those that the store has pinned: see Check. While it runs,
// instances whose process has died are taken up: see Recover.
func (o *Orchestrator) Attach(svc *eventbus.Service) {
	for _, s := range o.Subscriptions(svc.Name()) {
		svc.Handle(s.Topic, s.Handle, eventbus.Named(s.Saga), eventbus.Retry(patient))
	}
	svc.Add(eventbus.RunnerFunc(func(ctx context.Context) error {
		if err := o.Check(ctx); err != nil {
			return err
		}
		o.keepRecovering(ctx)
		return nil
	}))
}

// patient is the retry policy of orchestrators: what fails is the database, which
// comes back. Failures of the user's functions are part of a saga's life and no
// failures of a delivery. There are no tries in place, which would hold up other
// instances.
var patient = eventbus.RetryPolicy{
	Tries:        1,
	Delays:       []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second, 30 * time.Second},
	Redeliveries: 1 << 20,
	KeepOrder:    true,
}

// Check refuses definitions that have changed under their version since an
// orchestrator first ran them.
func (o *Orchestrator) Check(ctx context.Context) error {
	var errs []error
	for name, versions := range o.plans {
		for _, b := range versions {
			now := b.fingerprint()
			pinned, err := o.store.Pin(ctx, name, b.version, now)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("saga %q version %d: %w", name, b.version, err))
			case pinned != now:
				errs = append(errs, fmt.Errorf("saga %q version %d: %w: give it a new version and keep the old definition until its instances have ended", name, b.version, ErrChanged))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("saga: check: %w", err)
	}
	return nil
}

// Subscription is a topic that a saga listens to.
type Subscription struct {
	Saga  string
	Topic string
	// Group is the consumer group, "<service>.<saga>".
	Group string
	// Handle handles an event. It may be called for one event several times and
	// concurrently. An error asks for the event again, unless it is permanent.
	Handle message.NoPublishHandlerFunc
}

// Subscriptions returns what has to be handled, in a fixed order, for those who
// use Watermill's router or a consumer of their own instead of Attach; they call
// Check and Recover too. service is the name of the service, the source of the
// sagas' messages; it is set once.
func (o *Orchestrator) Subscriptions(service string) []Subscription {
	o.origin.service = service
	var all []Subscription
	for _, name := range slices.Sorted(maps.Keys(o.plans)) {
		for _, topic := range o.topics(name) {
			group := service + "." + name
			all = append(all, Subscription{name, topic, group, o.handler(name, topic, group)})
		}
	}
	return all
}

// topics are all that the versions of a saga listen to.
func (o *Orchestrator) topics(name string) []string {
	all := []string{controlName(name)}
	for _, b := range o.plans[name] {
		for _, src := range b.all {
			if src.topic != "" {
				all = append(all, src.topic)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// load returns an instance, from memory unless it must be fresh.
func (o *Orchestrator) load(ctx context.Context, saga, id string, fresh bool) (Instance, error) {
	if !fresh {
		if i, ok := o.cache.get(saga, id); ok {
			return i, nil
		}
	}
	i, err := o.store.Load(ctx, saga, id)
	if err != nil {
		return Instance{}, err
	}
	o.cache.put(i)
	return i, nil
}

// transit begins a transition of an instance.
func (o *Orchestrator) transit(ctx context.Context, i Instance) (*transit, error) {
	plan := o.plan(i.Saga, i.Version)
	if plan == nil {
		return nil, fmt.Errorf("the instance is of version %d, which this orchestrator has no definition of: keep old versions until their instances have ended", i.Version)
	}
	state, err := plan.decode(i.State, i.StateVersion)
	if err != nil {
		return nil, err
	}
	i.StateVersion = plan.stateVersion
	p := &progress{}
	if err := json.Unmarshal(i.Progress, p); err != nil {
		return nil, fmt.Errorf("the progress can't be decoded: %w", err)
	}
	return o.newTransit(ctx, plan, i, p, state), nil
}

func (o *Orchestrator) newTransit(ctx context.Context, plan *blueprint, i Instance, p *progress, state any) *transit {
	return &transit{ctx: ctx, to: o.origin, plan: plan, instance: i, progress: p, state: state, now: now(), was: i.Status, from: describe(plan, i, p)}
}
