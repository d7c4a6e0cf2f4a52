package amqpbus

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// slots is how many routing keys the keys of events are spread over. It is part
// of the wire contract: publishers and the bindings of every group count on it.
const slots = 32

// slotNames are the routing keys, "00" to "31".
var slotNames = func() (names [slots]string) {
	for i := range names {
		names[i] = fmt.Sprintf("%02d", i)
	}
	return names
}()

// slotOf returns the slot of a key: FNV-1a, 32 bits, modulo the number of slots.
func slotOf(key string) int {
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h % slots)
}

// maxEntity is RabbitMQ's limit for a name, less what suffixes take.
const maxEntity = 255 - len(":members") - 16

// groupNames are the names of what a group has on the broker. ':' is legal there
// and in no topic or group, so names of different groups never collide.
type groupNames struct {
	topic, group string
	base         string // and the group's exchange
	alternate    string // where the group's exchange sends what has another routing key
	members      string // exchange by which members hear of each other
	oldest       string // exchange that exists iff the group was created with StartOldest
	queues       []string
}

func namesOf(topic, group string, queues int, queueType string) groupNames {
	base := topic + ":" + group
	if len(base) > maxEntity {
		base = topic[:min(len(topic), 80)] + ":" + group[:min(len(group), 80)] + ":" + digest(base)
	}
	n := groupNames{
		topic: topic, group: group, base: base,
		alternate: alternateName(base, queues, queueType),
		members:   base + ":members",
		oldest:    base + ":oldest",
	}
	for q := range queues {
		n.queues = append(n.queues, queueName(base, q))
	}
	return n
}

// digest stands for what is too long to be a name.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

func queueName(base string, q int) string { return base + ":" + strconv.Itoa(q) }

// alternateName holds what members of a group must agree on: RabbitMQ refuses to
// declare the group's exchange again with another name of its alternate.
func alternateName(base string, queues int, queueType string) string {
	return fmt.Sprintf("%s:%d-%s", base, queues, queueType)
}

// alternatesOf returns what a group's alternate exchange can be called.
func alternatesOf(base string) (names []string) {
	for _, queues := range []int{1, 2, 4, 8, 16, 32} {
		names = append(names, alternateName(base, queues, QuorumQueue), alternateName(base, queues, ClassicQueue))
	}
	return names
}

// newName is the queue by which quorum queues are made sure of.
func newName(base string) string { return base + ":new" }

// unclaimed is the queue that keeps events of a topic nobody has read yet.
func unclaimed(topic string) string {
	if len(topic) > 235 {
		topic = topic[:200] + ":" + digest(topic)
	}
	return topic + ":unclaimed"
}

// lockName is the exclusive queue whose owner may create groups of the topic.
func lockName(topic string) string { return topic + ":lock" }

// checkTopic adds to the general rule what RabbitMQ reserves.
func checkTopic(topic string) error {
	if err := driver.CheckTopic(topic); err != nil {
		return err
	}
	if strings.HasPrefix(topic, "amq.") {
		return driver.Permanent(fmt.Errorf("%w: topic %q: RabbitMQ keeps names that begin with \"amq.\" to itself", driver.ErrInvalidName, topic))
	}
	return nil
}
