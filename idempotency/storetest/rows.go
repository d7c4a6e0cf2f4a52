package storetest

var rows = []row{
	{"claim_renew_complete", "a claimed operation is held until it is completed, and then its result is kept", claimRenewComplete},
	{"release", "a released key can be claimed again at once, and remembers fingerprint and attempts", release},
	{"lease_ends", "a lease ends when its time is over, not before, and then another may claim", leaseEnds},
	{"renewed_lease", "a renewed lease ends one lease after the renewal", renewedLease},
	{"claims_without_a_fencing_token", "who was overtaken can neither renew, complete nor release", fencing},
	{"ended_lease_not_taken", "a lease that ended but was not taken over may still be renewed or completed", endedLease},
	{"repeated_calls", "every method may be repeated after an unclear error", repeatedCalls},
	{"token_rises", "each claim of a key has a higher token than all before it, also after its record was forgotten", tokenRises},
	{"fingerprint", "another fingerprint is a mismatch, whatever has become of the operation", fingerprint},
	{"existing_only", "a key that is not known is not claimed where only existing ones are asked for", existingOnly},
	{"forgotten", "a record whose time is over counts as not known", forgotten},
	{"held_is_not_forgotten", "a claim that is renewed is held for longer than its record was to be kept", heldIsKept},
	{"prune", "pruning deletes what is over, nothing else, and says how much", prune},
	{"any_key", "keys of any bytes, case and length are told apart", anyKey},
	{"any_result", "results of any bytes, empty ones included, come back unchanged, as copies", anyResult},
	{"bad_requests", "a request that can't be kept is a permanent error", badRequests},
	{"context", "a context that has ended is an error, and nothing happens", contextEnds},
	{"like_the_reference", "any sequence of calls has the outcome that it has in a MemoryStore", likeReference},
	{"one_holder", "of concurrent claims of one key at most one succeeds, and tokens rise in the order of holding", oneHolder},
}
