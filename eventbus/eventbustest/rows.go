package eventbustest

// rows is the suite, in reading order.
var rows = []row{
	{"round_trip", "payload, metadata and id arrive as they were published, whatever bytes they hold", roundTrip},
	{"publisher_keeps_nothing", "the publisher may reuse a message's memory once Publish returned", publisherKeepsNothing},
	{"handler_owns_message", "what a handler does to its message's fields is not seen by other groups or redeliveries", handlerOwnsMessage},
	{"publish_many", "every event of concurrent publishers arrives once when nothing fails", publishMany},
	{"publish_batch", "the events of one Publish arrive, in order where they share a key", publishBatch},

	{"group_fan_out", "each group sees every event", groupFanOut},
	{"group_competition", "inside a group each event goes to one member, and members share the work", groupCompetition},
	{"group_waits", "a group keeps its events while it has no member", groupWaits},
	{"start_oldest", "a new group starts with the oldest event kept", startOldest},
	{"start_newest", "a new group that asks for it starts with the next event", startNewest},
	{"replay", "a later group is given what was published before it existed, if the driver declares replay", replay},
	{"start_once", "a group that exists goes on where it was, whatever Start says", startOnce},

	{"nack", "a nacked event comes again, with its attempt counted, ahead of its key", nack},
	{"nack_uncounted", "an event given back for no fault of its own keeps its attempt", nackUncounted},
	{"nack_with_delay_holding", "a held event comes after its delay; its key waits and no other does", nackHolding},
	{"nack_with_delay", "a delayed event lets its key go on; without the capability a service must hold", nackDelayed},
	{"nack_on_leaving", "an event given back by a leaving member goes to another", nackOnLeaving},
	{"close_under_handler", "what a member had not settled when its broker was closed goes to another", closeUnderHandler},
	{"crash", "what a member had not settled when its process was killed goes to another", crash},
	{"delay", "an event with a due time comes no earlier; without the capability it is refused", delayedPublish},

	{"key_order", "events of one key are handled one at a time in publish order, also when some are nacked", keyOrder},
	{"key_order_with_rebalance", "order per key holds while members join and leave, and nothing is skipped", keyOrderRebalance},
	{"keyed_concurrency", "one slow key never holds up the others", keyedConcurrency},
	{"concurrency_limit", "no more events are handled at a time than was asked for", concurrencyLimit},
	{"no_key_no_order", "events without a key are handled side by side", noKeyNoOrder},

	{"resume", "a group goes on after the last acknowledged event", resume},
	{"resume_after_close", "a durable broker gives nothing away when every connection closes", resumeAfterClose},
	{"seek", "a group can be sent back or ahead in time, but not under its running members", seek},
	{"drain", "a consumer that is stopped finishes what runs, settles it and starts nothing", drain},

	{"dedup", "an event published again under its id is seen once if the driver declares it, else twice", dedup},
	{"too_large", "a payload over the limit is refused, permanently; one at the limit is taken", tooLarge},
	{"batch_refused", "a batch with a bad event is reported event by event", batchRefused},
	{"invalid_topic", "a name that some broker would refuse is refused by all", invalidTopic},
	{"invalid_subscription", "a subscription that can't work is refused when it is made", invalidSubscription},
	{"publish_cancelled", "a publish whose context has ended publishes nothing", publishCancelled},
	{"subscribe_cancelled", "a subscribe whose context has ended makes no member", subscribeCancelled},
	{"run_ended", "a consumer that is run with a context that has ended gives its membership up", runEnded},
	{"provision_off", "a broker that may create nothing says what is missing, permanently", provisionOff},
	{"closed", "a closed broker says so, and Close may be called again", closed},
}
