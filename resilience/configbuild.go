package resilience

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Validate returns a *ConfigError that lists every problem, or nil. custom are
// the names of the policies that RegistryConfig.Custom will have.
func (cfg Config) Validate(custom ...string) error {
	r := &Registry{cfg: RegistryConfig{Custom: map[string]Policy{}}}
	for _, name := range custom {
		r.cfg.Custom[name] = &Pipeline{}
	}
	_, err := r.build(cfg)
	return err
}

// generation is what a Registry made of one Config.
type generation struct {
	handles   map[string]*NamedPolicy
	pipelines map[string]*Pipeline
	made      map[string]made // by the name of the policy
	budgets   map[string]*Budget
	commits   []func() // hand settings over to what goes on from before
}

// made is a policy, and from what it was made.
type made struct {
	settings settings
	policy   Policy
}

// builder makes policies of a Config, with the names and states of those that
// the registry has made before. It changes nothing.
type builder struct {
	problems
	cfg      Config
	registry *Registry
	next     *generation
	paths    map[string]string // of names
	shared   map[string]Policy
}

// build returns what cfg becomes, or all that is wrong with it.
func (r *Registry) build(cfg Config) (*generation, error) {
	g := &generation{
		handles: map[string]*NamedPolicy{}, pipelines: map[string]*Pipeline{},
		made: map[string]made{}, budgets: map[string]*Budget{},
	}
	b := &builder{cfg: cfg, registry: r, next: g, paths: map[string]string{}, shared: map[string]Policy{}}
	b.addBudgets()
	b.addCustom()
	b.addShared()
	if len(cfg.Policies) == 0 {
		b.add("policies", "must have at least one pipeline")
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Policies)) {
		b.addPipeline(name, cfg.Policies[name])
	}
	return g, b.err()
}

const unlimited = "unlimited"

func (b *builder) addBudgets() {
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Budgets)) {
		s := b.cfg.Budgets[name]
		path := within("budgets", name)
		if name == "" || name == unlimited {
			b.add(path, "is not a name for a budget")
		}
		next, err := NewBudget(BudgetConfig(s))
		if err != nil {
			b.constructor(path, s, err)
			next = Unlimited() // the name is known all the same
		}
		b.addBudget(name, next)
	}
}

func (b *builder) addBudget(name string, next *Budget) *Budget {
	use := next
	if old, ok := b.registry.budgets[name]; ok {
		b.next.commits = append(b.next.commits, func() { old.become(next) })
		use = old
	}
	b.next.budgets[name] = use
	return use
}

// budget finds the budget that the policy named user asks for. The default is
// one of its own, with its name.
func (b *builder) budget(path, name, user string, own BudgetConfig) *Budget {
	switch _, ok := b.cfg.Budgets[name]; {
	case name == "":
		if _, taken := b.cfg.Budgets[user]; taken {
			b.add(within("budgets", user), "is the name of a policy, whose own budget has it")
		}
		return b.addBudget(user, Must(NewBudget(own)))
	case name == unlimited:
		return Unlimited()
	case ok:
		return b.next.budgets[name]
	}
	b.add(within(path, "budget"), "there is no budget %q; known are %s", name, list(b.cfg.Budgets, unlimited))
	return nil
}

func (b *builder) addCustom() {
	for _, name := range slices.Sorted(maps.Keys(b.registry.cfg.Custom)) {
		p := b.registry.cfg.Custom[name]
		if isNil(p) {
			b.add(within("custom", name), "must not be nil")
			p = nil
		}
		b.shared[name] = p
	}
}

func (b *builder) addShared() {
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Shared)) {
		s, path := b.cfg.Shared[name], within("shared", name)
		if _, taken := b.shared[name]; taken {
			b.add(path, "is the name of a custom policy, too")
		}
		if s.Policy != "" {
			b.add(within(path, "policy"), "must not refer to another policy")
			s.Policy = ""
			if len(s.kinds()) == 0 {
				b.shared[name] = nil
				continue
			}
		}
		b.shared[name] = b.policy(path, s, func(string) string { return name })
	}
}

func (b *builder) addPipeline(name string, list []PolicySettings) {
	path := within("policies", name)
	if name == "" {
		b.add("policies", "a pipeline must have a name")
	}
	if len(list) == 0 {
		b.add(path, "must have at least one policy")
	}
	count := map[string]int{}
	named := func(kind string) string {
		count[kind]++
		if n := count[kind]; n > 1 {
			return fmt.Sprintf("%s.%s.%d", name, kind, n)
		}
		return name + "." + kind
	}
	var policies []Policy
	for i, s := range list {
		if p := b.policy(fmt.Sprintf("%s[%d]", path, i), s, named); p != nil {
			policies = append(policies, p)
		}
	}
	b.next.pipelines[name] = Must(NewPipeline(name, policies...))
}

// policy returns what s is, or nil if there is a problem with it.
func (b *builder) policy(path string, s PolicySettings, named func(kind string) string) Policy {
	kinds := s.kinds()
	if len(kinds)+min(1, len(s.Policy)) != 1 {
		b.add(path, "must be of exactly one kind, with settings or {}; got %s", kindNames(s, kinds))
		return nil
	}
	if s.Policy != "" {
		return b.reference(path, s)
	}
	k := kinds[0]
	name := s.Name
	if generated := named(k.name); name == "" {
		name = generated
	}
	if other, taken := b.paths[name]; taken {
		b.add(path, "the name %q is that of %s, too", name, other)
	}
	b.paths[name] = path
	return b.instance(within(path, k.name), name, k.settings)
}

func (b *builder) reference(path string, s PolicySettings) Policy {
	if s.Name != "" {
		b.add(within(path, "name"), "must be that of the policy referred to")
	}
	p, ok := b.shared[s.Policy]
	if !ok {
		b.add(within(path, "policy"), "there is no policy %q; known are %s", s.Policy, list(b.shared))
	}
	return p
}

// instance returns the policy of that name, which may be in use already.
func (b *builder) instance(path, name string, s settings) Policy {
	old, known := b.registry.made[name]
	next, err := s.build(b, path, name)
	switch {
	case err != nil:
		b.constructor(path, s, err)
		return nil
	case known && old.settings == s:
		next = old.policy
	case known:
		var commit func()
		next, commit = succeed(old.policy, next)
		b.next.commits = append(b.next.commits, commit)
	}
	b.next.made[name] = made{s, next}
	return next
}

// list returns the names in m, and others, for messages.
func list[V any](m map[string]V, others ...string) string {
	names := append(slices.Sorted(maps.Keys(m)), others...)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
