package clients

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafka-go does not negotiate most of its request versions: it sends the ones it was written with.

func TestKafkaGo(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*limit)
	defer cancel()
	topic := unique("kafka-go")

	conn, err := kafka.DialContext(ctx, "tcp", bootstrap)
	must(t, err)
	defer conn.Close()
	must(t, conn.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: 2, ReplicationFactor: 1}))
	eventually(t, "two leaders", func() bool {
		partitions, err := conn.ReadPartitions(topic)
		return err == nil && len(partitions) == 2
	})

	codecs := []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}
	sent := 0
	t.Run("writer", func(t *testing.T) {
		for _, codec := range codecs {
			w := &kafka.Writer{Addr: kafka.TCP(bootstrap), Topic: topic, Compression: codec, RequiredAcks: kafka.RequireAll, BatchTimeout: 10 * time.Millisecond}
			var messages []kafka.Message
			for i := range 100 {
				messages = append(messages, kafka.Message{Key: fmt.Appendf(nil, "%s-%d", codec, i), Value: text(i * 10),
					Headers: []kafka.Header{{Key: "codec", Value: []byte(codec.String())}}})
			}
			must(t, w.WriteMessages(ctx, messages...))
			must(t, w.Close())
			sent += len(messages)
		}
	})

	t.Run("group reader", func(t *testing.T) {
		group := unique("g")
		read := func(count int) {
			r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap}, GroupID: group, Topic: topic, MaxWait: 100 * time.Millisecond,
				StartOffset: kafka.FirstOffset, HeartbeatInterval: 300 * time.Millisecond, SessionTimeout: 10 * time.Second})
			defer func() { must(t, r.Close()) }()
			for range count {
				m, err := r.FetchMessage(ctx)
				must(t, err)
				equal(t, "codec", m.Headers[0].Key)
				must(t, r.CommitMessages(ctx, m))
			}
		}
		read(sent - 10)
		// The next member begins where the first has committed.
		read(10)
	})

	t.Run("partition reader", func(t *testing.T) {
		total := 0
		for partition := range 2 {
			r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap}, Topic: topic, Partition: partition, MaxWait: 100 * time.Millisecond})
			last, err := kafka.DialLeader(ctx, "tcp", bootstrap, topic, partition)
			must(t, err)
			first, end, err := last.ReadOffsets()
			must(t, err)
			equal(t, int64(0), first)
			for range end {
				_, err := r.ReadMessage(ctx)
				must(t, err)
			}
			must(t, r.SetOffsetAt(ctx, time.UnixMilli(0)))
			total += int(end)
			must(t, last.Close())
			must(t, r.Close())
		}
		equal(t, sent, total)
	})

	t.Run("client", func(t *testing.T) {
		client := &kafka.Client{Addr: kafka.TCP(bootstrap)}
		versions, err := client.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
		must(t, err)
		must(t, versions.Error)
		groups, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{})
		must(t, err)
		must(t, groups.Error)
		deleted, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
		must(t, err)
		must(t, deleted.Errors[topic])
	})
}
