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
	// RecoverAfter is how long after Execute has begun an instance another process
	// takes it up if the first has died. Defaults to a minute.
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
	plans  map[string]map[int]*blueprint // by name and version
	latest map[string]*blueprint
	cache  *cache
	origin *origin
}

// NewOrchestrator returns an orchestrator of the given definitions, several
// versions of one saga among them, or all that is wrong with them.
func NewOrchestrator(store Store, cfg Config, definitions ...Untyped) (*Orchestrator, error) {
	o := &Orchestrator{store: store, cfg: cfg, plans: map[string]map[int]*blueprint{}, latest: map[string]*blueprint{}, origin: &origin{}}
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
	if err := Validate(d); err != nil {
		return err
	}
	b := d.blueprint()
	if o.plans[b.name] == nil {
		o.plans[b.name] = map[int]*blueprint{}
	}
	if o.plans[b.name][b.version] != nil {
		return fmt.Errorf("saga %q: version %d is given twice", b.name, b.version)
	}
	o.plans[b.name][b.version] = b
	if l := o.latest[b.name]; l == nil || l.version < b.version {
		o.latest[b.name] = b
	}
	return nil
}

// Attach has the service handle the events of the sagas. Each saga is a consumer
// group of its own, "<service>.<saga>". When the service starts, the definitions
// are compared with those that the store has pinned: see Check.
func (o *Orchestrator) Attach(svc *eventbus.Service) {
	for _, s := range o.Subscriptions(svc.Name()) {
		svc.Handle(s.Topic, s.Handle, eventbus.Named(s.Saga), eventbus.Retry(patient))
	}
	svc.Add(eventbus.RunnerFunc(func(ctx context.Context) error {
		if err := o.Check(ctx); err != nil {
			return err
		}
		<-ctx.Done()
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
		for v, b := range versions {
			now := b.fingerprint()
			pinned, err := o.store.Pin(ctx, name, v, now)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("saga %q version %d: %w", name, v, err))
			case pinned != now:
				errs = append(errs, fmt.Errorf("saga %q version %d: %w: give it a new version and keep the old definition until its instances have ended", name, v, ErrChanged))
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
// use Watermill's router or a consumer of their own instead of Attach. service is
// the name of the service, the source of the sagas' messages; it is set once.
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

// arrival is a message that has arrived for a saga.
type arrival struct {
	m        *message.Message
	consumer string
	key      string     // of the event; empty for an act of control
	id       string     // of the instance
	plan     *blueprint // that has decoded the value
	value    any
	src      *source
	step     string
	act      *control
}

func (o *Orchestrator) handler(saga, topic, consumer string) message.NoPublishHandlerFunc {
	return func(m *message.Message) error {
		a, err := o.read(saga, topic, m)
		if err != nil {
			return eventbus.Permanent(fmt.Errorf("saga %q: topic %q: event %s: %w", saga, topic, m.UUID, err))
		}
		if a == nil {
			return nil
		}
		a.consumer = consumer
		if err := o.arrive(m.Context(), saga, a); err != nil {
			return fmt.Errorf("saga %q: instance %q: event %s of topic %q: %w", saga, a.id, m.UUID, topic, err)
		}
		return nil
	}
}

// read finds out what a message is about. It returns nil for one that is of no
// interest.
func (o *Orchestrator) read(saga, topic string, m *message.Message) (*arrival, error) {
	if topic == controlName(saga) {
		return o.readControl(saga, m)
	}
	if of := m.Metadata[MetadataSaga]; of != "" && of != saga {
		return nil, nil // an answer to another saga's command
	}
	for _, b := range o.versions(saga) {
		for _, src := range b.all {
			if src.topic != topic {
				continue
			}
			value, id, err := src.decode(m)
			if err != nil {
				return nil, err
			}
			a := &arrival{m: m, key: src.key, id: id, plan: b, value: value, src: &src, step: m.Metadata[MetadataStep]}
			if e, ok := value.(Ended); ok {
				if e.Parent != saga {
					return nil, nil
				}
				a.key, a.step = childKey(e.Saga, e.Status), e.ParentStep
			}
			if id == "" {
				return nil, errors.New("the correlation returned an empty id")
			}
			return a, nil
		}
	}
	return nil, nil
}

func (o *Orchestrator) readControl(saga string, m *message.Message) (*arrival, error) {
	e, err := o.latest[saga].control().Decode(m)
	if err != nil {
		return nil, err
	}
	c := e.Data
	a := &arrival{m: m, id: c.ID, act: &c}
	if c.ID == "" {
		return nil, errors.New("the message names no instance")
	}
	if c.Kind != controlSignal {
		return a, nil
	}
	a.act, a.key = nil, signalPrefix+c.Name
	for _, b := range o.versions(saga) {
		if src := match(b.all, a.key); src != nil {
			a.plan, a.src = b, src
			a.value, _, err = src.decode(m)
			return a, err
		}
	}
	return nil, fmt.Errorf("no version of the saga knows a signal %q", c.Name)
}

// arrive handles what has arrived, and everything that follows from it at once.
func (o *Orchestrator) arrive(ctx context.Context, saga string, a *arrival) error {
	_, remembered := o.cache.get(saga, a.id)
	for fresh := false; ; fresh = true {
		t, err := o.prepare(ctx, saga, a, fresh)
		switch {
		case t == nil && remembered && !fresh:
			continue // nothing is dropped or refused on the word of the cache
		case err != nil:
			return err
		case t == nil:
			return o.again(ctx, saga, a)
		}
		if a.consumer == "" && len(t.calls) > 0 { // it would not come again
			t.wakeAt(t.now.Add(o.cfg.RecoverAfter), recovery)
		}
		err = o.commit(ctx, t, a)
		switch {
		case errors.Is(err, ErrConflict):
			continue
		case errors.Is(err, ErrDuplicate):
			return o.resume(ctx, saga, a.id)
		case err != nil:
			return err
		}
		_, err = o.drive(ctx, t)
		return err
	}
}

// prepare makes the transition that follows from a. It returns nil if there is
// none.
func (o *Orchestrator) prepare(ctx context.Context, saga string, a *arrival, fresh bool) (*transit, error) {
	i, err := o.load(ctx, saga, a.id, fresh)
	if errors.Is(err, ErrNoInstance) {
		return o.prepareFirst(ctx, saga, a)
	}
	if err != nil {
		return nil, err
	}
	t, err := o.transit(ctx, i)
	if err != nil {
		return nil, err
	}
	if a.act != nil {
		return o.act(t, a)
	}
	if err := t.event(a); err != nil {
		return nil, err
	}
	return o.happens(t, a)
}

// happens lets the event change the instance.
func (o *Orchestrator) happens(t *transit, a *arrival) (*transit, error) {
	before := t.instance
	var taken, keep bool
	err := t.guard(func() error {
		if taken, keep = t.plan.program.happen(t); taken {
			return t.takeEarly()
		}
		return nil
	})
	switch {
	case err != nil:
		return o.broken(t, before, a, err)
	case keep && !taken:
		return t, t.keep(a.m)
	case !taken:
		o.cfg.Logger.Debug("saga: event changes nothing", "saga", before.Saga, "instance", before.ID, "event", a.key, "event_id", a.m.UUID, "reason", t.note)
		return nil, nil
	}
	return t, nil
}

// broken makes an instance stuck whose definition's functions fail, and keeps the
// event for when it is mended.
func (o *Orchestrator) broken(t *transit, before Instance, a *arrival, cause error) (*transit, error) {
	fresh, err := o.transit(t.ctx, before)
	if err != nil {
		return nil, err
	}
	if a != nil && a.act == nil {
		fresh.key = a.key
		if err := fresh.keep(a.m); err != nil {
			return nil, err
		}
	}
	fresh.fail(cause)
	return fresh, nil
}

// prepareFirst begins an instance, if that is what a does.
func (o *Orchestrator) prepareFirst(ctx context.Context, saga string, a *arrival) (*transit, error) {
	plan := o.latest[saga]
	state := plan.fresh()
	i := Instance{Saga: saga, Version: plan.version, ID: a.id, Status: Running, StateVersion: plan.stateVersion, Created: now()}
	p := &progress{}
	switch {
	case a.act != nil && a.act.Kind == controlStart:
		if err := json.Unmarshal(a.act.Data, state); err != nil {
			return nil, eventbus.Permanent(fmt.Errorf("the state to begin with can't be decoded as %s: %w", plan.what, err))
		}
		p.Parent = a.act.Parent
	case a.act != nil && a.act.Kind == controlCompensate && a.act.Parent != nil:
		// The compensation has overtaken the start, which must find that it came too late.
		return o.prepareNull(ctx, plan, i, a)
	case a.act != nil && a.act.Kind == controlWake:
		return nil, nil
	case a.act == nil && match(plan.startedBy, a.key) != nil:
		a.src = match(plan.startedBy, a.key)
	default:
		return nil, missing(a)
	}
	t := o.newTransit(ctx, plan, i, p, state)
	t.key = "start"
	if a.act == nil {
		if err := t.event(a); err != nil {
			return nil, err
		}
	}
	broken, err := o.begin(t)
	if broken == nil {
		return t, err
	}
	return o.stillborn(ctx, plan, i, a, broken)
}

// begin starts the instance of t, and makes the calls that it begins with before
// it is stored. That saves a transaction: if this process dies, what started the
// instance comes again. broken is an error of a function of the definition.
func (o *Orchestrator) begin(t *transit) (broken, err error) {
	broken = t.guard(func() error {
		t.plan.program.begin(t)
		return t.takeEarly()
	})
	if broken != nil || len(t.calls) == 0 {
		return broken, nil
	}
	before, err := json.Marshal(t.state)
	if err != nil {
		return nil, eventbus.Permanent(fmt.Errorf("the state can't be encoded: %w", err))
	}
	returned, err := o.callAll(t.ctx, t)
	if err != nil {
		return nil, err
	}
	if t.state, err = t.plan.decode(before, t.plan.stateVersion); err != nil { // as in next
		return nil, err
	}
	t.now = now()
	return o.takeReturned(t, returned), nil
}

// stillborn is an instance whose definition's functions fail at once.
func (o *Orchestrator) stillborn(ctx context.Context, plan *blueprint, i Instance, a *arrival, cause error) (*transit, error) {
	state := plan.fresh()
	p := &progress{}
	if a.act != nil {
		p.Parent = a.act.Parent
		_ = json.Unmarshal(a.act.Data, state) // it could be decoded before
	}
	t := o.newTransit(ctx, plan, i, p, state)
	if a.act == nil {
		t.key = a.key
		if err := t.keep(a.m); err != nil {
			return nil, err
		}
	}
	t.fail(cause)
	return t, nil
}

// prepareNull makes an instance that ends before it has begun.
func (o *Orchestrator) prepareNull(ctx context.Context, plan *blueprint, i Instance, a *arrival) (*transit, error) {
	t := o.newTransit(ctx, plan, i, &progress{Parent: a.act.Parent}, plan.fresh())
	t.key, t.note = "compensate", "compensated before it was started"
	t.end(Compensated)
	return t, nil
}

// laterAttempts is how often an event is delivered for which there is no instance
// yet: for some three minutes.
const laterAttempts = 10

// missing answers an event that no instance is there for.
func missing(a *arrival) error {
	if a.act != nil || a.src == nil {
		return eventbus.Permanent(ErrNoInstance)
	}
	switch a.src.missing {
	case Ignore:
		return nil
	case Later:
		if d, ok := eventbus.DeliveryOf(a.m.Context()); ok && d.Attempt < laterAttempts {
			return eventbus.RetryAfter(ErrNoInstance, time.Second)
		}
	}
	return eventbus.Permanent(fmt.Errorf("%w: check the correlation of topic %q", ErrNoInstance, a.src.topic))
}

// act makes the transition of an act of control.
func (o *Orchestrator) act(t *transit, a *arrival) (*transit, error) {
	before := t.instance
	t.key = string(a.act.Kind)
	switch a.act.Kind {
	case controlStart: // repeated by a parent or a client
		return nil, nil
	case controlWake:
		return o.wake(t, a)
	}
	var refused error
	err := t.guard(func() error {
		if refused = t.plan.program.control(t, *a.act); refused != nil {
			return nil
		}
		return t.takeEarly()
	})
	if err != nil {
		return o.broken(t, before, a, err)
	}
	if refused != nil && a.act.Parent != nil { // a parent's act that has come before, or too late
		return nil, nil
	}
	if refused != nil {
		return nil, refused
	}
	return t, nil
}

// wake lets timers expire. The clock that set them decides: the wake-up comes
// when it is due, whatever the clock of this machine says.
func (o *Orchestrator) wake(t *transit, a *arrival) (*transit, error) {
	if a.act.Name == recovery {
		return nil, o.resume(t.ctx, t.instance.Saga, t.instance.ID)
	}
	var due time.Time
	if err := json.Unmarshal(a.act.Data, &due); err == nil && due.After(t.now) {
		t.now = due
	}
	if t.instance.Wake.After(t.now) || t.instance.Status.Ended() || t.instance.Status == Stuck || t.plan.program.nextDue(t.progress).IsZero() {
		return nil, nil
	}
	t.instance.Wake = time.Time{}
	before := t.instance
	err := t.guard(func() error {
		t.plan.program.wake(t)
		return t.takeEarly()
	})
	if err != nil {
		return o.broken(t, before, nil, err)
	}
	return t, nil
}

// recovery names the wake-ups for instances whose process may have died.
const recovery = "recover"

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
	plan := o.plans[i.Saga][i.Version]
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

// event makes a what happens, as the instance's version of the definition reads
// it.
func (t *transit) event(a *arrival) (err error) {
	t.key, t.value, t.src, t.step = a.key, a.value, a.src, a.step
	if t.plan == a.plan {
		return nil
	}
	if t.src = match(t.plan.all, a.key); t.src == nil {
		t.value = nil
		return nil
	}
	if t.value, _, err = t.src.decode(a.m); err != nil {
		return eventbus.Permanent(err)
	}
	return nil
}

// versions of a saga, newest first.
func (o *Orchestrator) versions(saga string) []*blueprint {
	all := slices.Collect(maps.Values(o.plans[saga]))
	slices.SortFunc(all, func(a, b *blueprint) int { return b.version - a.version })
	return all
}
