// Package watermillresilience puts policies of package resilience around the
// handlers and publishers of Watermill's Router.
//
//	router.AddMiddleware(watermillresilience.Middleware(policy, watermillresilience.Config{}))
//	router.AddPublisherDecorators(watermillresilience.PublisherDecorator(policy, watermillresilience.PublisherConfig{}))
//
// # Handlers
//
// Each call of the policy's function is a call of the handler, with the attempt's
// context in the message: its deadline, and resilience.PreviousAttempts. After
// the attempt the message has the context it came with, so nobody outside is left
// with one that has ended, and neither are the messages that the handler made.
//
// A message that the policy turns away, because a circuit breaker is open or a
// limit is reached, waits where it is until the policy lets it through: intake
// pauses. Watermill redelivers what is nacked at once, so returning the error
// would make a hot loop of every outage, and a dead letter of every message where
// a poison queue is around the policy. The wait ends with the message's context,
// and after Config.MaxPause; only then is the error returned.
// resilience.IsRejected tells it from others, which keeps it out of a poison queue
// for good:
//
//	middleware.PoisonQueueWithFilter(publisher, "poison", func(err error) bool {
//		return !resilience.IsRejected(err)
//	})
//
// The first middleware that is added to a Router is the outermost. The usual
// order is recovery, poison queue, this one. Watermill's own Retry, Timeout and
// CircuitBreaker are not needed beside it.
//
// # Publishers
//
// Each message of a Publish goes through the policy by itself: where the third
// of five can't be published, a retry sends it and not again the first two, and
// the error, a *PublishError, says how many were published. That costs a publisher
// that sends batches one round trip for each message; PublisherConfig.Batch keeps
// them together for publishers that take all or nothing, and for consumers that
// drop repeats.
//
// # Not for Hedge
//
// A message must not be handled or published twice at a time, so a Hedge does not
// fit in. Middleware panics, and PublisherDecorator returns an error, for one that
// the policy describes; a Registry may bring one in later, which nobody notices.
package watermillresilience
