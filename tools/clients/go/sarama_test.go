package clients

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/IBM/sarama"
)

// sarama takes its request versions and its message format from the broker version it is told, and many programs still tell it
// an old one. It is told here not to ask the broker, so that it sends just those.

var saramaAges = []struct {
	version sarama.KafkaVersion
	oldest  bool // message format v0 or v1, or requests that Kafka 4 has dropped
	codecs  []sarama.CompressionCodec
}{
	{sarama.V0_8_2_0, true, []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy}},
	{sarama.V0_9_0_1, true, []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy}},
	{sarama.V0_10_0_0, true, []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4}},
	{sarama.V0_10_2_0, true, []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4}},
	{sarama.V0_11_0_0, false, []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4}},
	{sarama.V1_0_0_0, false, []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionSnappy}},
	{sarama.V2_1_0_0, false, []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD}},
	{sarama.V2_8_0_0, false, []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionZSTD}},
	{sarama.MaxVersion, false, []sarama.CompressionCodec{sarama.CompressionNone, sarama.CompressionLZ4}},
}

func saramaConfig(version sarama.KafkaVersion) *sarama.Config {
	c := sarama.NewConfig()
	c.Version = version
	c.ApiVersionsRequest = false
	c.Producer.Return.Successes = true
	c.Producer.Return.Errors = true
	c.Producer.Flush.Frequency = 5 * time.Millisecond
	c.Producer.MaxMessageBytes = 4_000_000
	c.Producer.Retry.Max = 20
	c.Consumer.MaxWaitTime = 100 * time.Millisecond
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Interval = 100 * time.Millisecond
	c.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	c.Metadata.Retry.Max = 20
	return c
}

func saramaSend(t *testing.T, config *sarama.Config, topic string, values ...[]byte) error {
	t.Helper()
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	must(t, err)
	defer producer.Close()
	var messages []*sarama.ProducerMessage
	for i, v := range values {
		m := &sarama.ProducerMessage{Topic: topic, Key: sarama.StringEncoder(fmt.Sprint(i)), Value: sarama.ByteEncoder(v)}
		if config.Version.IsAtLeast(sarama.V0_11_0_0) {
			m.Headers = []sarama.RecordHeader{{Key: []byte("h"), Value: []byte{byte(i)}}}
		}
		messages = append(messages, m)
	}
	return producer.SendMessages(messages)
}

func saramaRead(t *testing.T, config *sarama.Config, topic string, from int64, count int) []*sarama.ConsumerMessage {
	t.Helper()
	consumer, err := sarama.NewConsumer([]string{bootstrap}, config)
	must(t, err)
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(topic, 0, from)
	must(t, err)
	defer partition.Close()
	var got []*sarama.ConsumerMessage
	for timer := time.After(limit); len(got) < count; {
		select {
		case m := <-partition.Messages():
			got = append(got, m)
		case <-timer:
			t.Fatalf("%d of %d messages in time", len(got), count)
		}
	}
	return got
}

func TestSarama(t *testing.T) {
	for _, age := range saramaAges {
		dropped := func(t *testing.T) {
			if os.Getenv("BROKER") == "kafka" {
				t.Skipf("Kafka 4 has dropped request versions of %s", age.version)
			}
		}
		skip := func(t *testing.T) {
			if age.oldest {
				dropped(t)
			}
		}
		if os.Getenv("BROKER") == "kafka-3" && age.version == sarama.MaxVersion {
			continue
		}
		at := func(name string) string { return fmt.Sprintf("%s %s", age.version, name) }
		for _, codec := range age.codecs {
			t.Run(at(codec.String()), func(t *testing.T) {
				skip(t)
				config := saramaConfig(age.version)
				config.Producer.Compression = codec
				topic := unique("sarama")
				var values [][]byte
				for i := range 300 {
					values = append(values, text(i))
				}
				values = append(values, noise(50_000), nil)
				must(t, saramaSend(t, config, topic, values...))
				// Those of its own age and those of today read the same.
				for _, reader := range []sarama.KafkaVersion{age.version, sarama.MaxVersion} {
					for i, m := range saramaRead(t, saramaConfig(reader), topic, sarama.OffsetOldest, len(values)) {
						equal(t, int64(i), m.Offset)
						equal(t, fmt.Sprint(i), string(m.Key))
						if !bytes.Equal(values[i], m.Value) {
							t.Fatalf("message %d differs", i)
						}
						if age.version.IsAtLeast(sarama.V0_11_0_0) {
							equal(t, byte(i), m.Headers[0].Value[0])
						}
					}
				}
				// From the middle of a compressed batch.
				equal(t, "150", string(saramaRead(t, saramaConfig(age.version), topic, 150, 10)[0].Key))
			})
		}
		t.Run(at("offsets"), func(t *testing.T) {
			skip(t)
			config := saramaConfig(age.version)
			topic := unique("sarama")
			must(t, saramaSend(t, config, topic, text(10), text(20), text(30)))
			client, err := sarama.NewClient([]string{bootstrap}, config)
			must(t, err)
			defer client.Close()
			for position, want := range map[int64]int64{sarama.OffsetOldest: 0, sarama.OffsetNewest: 3} {
				got, err := client.GetOffset(topic, 0, position)
				must(t, err)
				equal(t, want, got)
			}
			group := unique("g")
			for want := int64(-1); want < 3; want += 3 {
				manager, err := sarama.NewOffsetManagerFromClient(group, client)
				must(t, err)
				partition, err := manager.ManagePartition(topic, 0)
				must(t, err)
				next, _ := partition.NextOffset()
				if want < 0 {
					// Nothing is committed: the configured beginning.
					equal(t, sarama.OffsetOldest, next)
				} else {
					equal(t, want, next)
				}
				partition.MarkOffset(2, "two")
				manager.Commit()
				must(t, partition.Close())
				must(t, manager.Close())
			}
		})
		t.Run(at("too large"), func(t *testing.T) {
			skip(t)
			topic := unique("sarama")
			config := saramaConfig(age.version)
			must(t, saramaSend(t, config, topic, text(1_000_000)))
			failures, ok := saramaSend(t, config, topic, text(1_100_000)).(sarama.ProducerErrors)
			if !ok || failures[0].Err != sarama.ErrMessageSizeTooLarge {
				t.Fatalf("too large a message: %v", failures)
			}
		})
		if age.version.IsAtLeast(sarama.V0_10_2_0) {
			t.Run(at("group"), func(t *testing.T) {
				skip(t)
				saramaGroup(t, saramaConfig(age.version))
			})
			t.Run(at("admin"), func(t *testing.T) {
				// Before 2.0 with DescribeConfigs v0.
				if !age.version.IsAtLeast(sarama.V2_0_0_0) {
					dropped(t)
				}
				saramaAdmin(t, saramaConfig(age.version))
			})
		}
		if age.version.IsAtLeast(sarama.V0_11_0_0) {
			t.Run(at("idempotent"), func(t *testing.T) {
				skip(t)
				config := saramaConfig(age.version)
				config.Producer.Idempotent = true
				config.Producer.RequiredAcks = sarama.WaitForAll
				config.Net.MaxOpenRequests = 1
				topic := unique("sarama")
				must(t, saramaSend(t, config, topic, text(1), text(2)))
				must(t, saramaSend(t, config, topic, text(3)))
				equal(t, 3, len(saramaRead(t, config, topic, 0, 3)))
			})
		}
	}
}

// saramaHandler counts what it is given and marks it as done.
type saramaHandler struct{ got chan string }

func (saramaHandler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (saramaHandler) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (h saramaHandler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	for m := range c.Messages() {
		s.MarkMessage(m, "")
		h.got <- string(m.Value)
	}
	return nil
}

func saramaGroup(t *testing.T, config *sarama.Config) {
	topic, id := unique("sarama"), unique("g")
	must(t, saramaSend(t, config, topic, text(10), text(20), text(30)))
	for round, want := range []int{3, 2} {
		group, err := sarama.NewConsumerGroup([]string{bootstrap}, id, config)
		must(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		handler := saramaHandler{make(chan string, 100)}
		done := make(chan error, 1)
		go func() {
			var err error
			for ctx.Err() == nil && err == nil {
				err = group.Consume(ctx, []string{topic}, handler)
			}
			done <- err
		}()
		for i := range want {
			select {
			case <-handler.got:
			case err := <-done:
				t.Fatalf("round %d: the group ended: %v", round, err)
			case <-time.After(limit):
				t.Fatalf("round %d: %d of %d messages in time", round, i, want)
			}
		}
		cancel()
		must(t, <-done)
		must(t, group.Close())
		must(t, saramaSend(t, config, topic, text(40), text(50)))
	}
}

func saramaAdmin(t *testing.T, config *sarama.Config) {
	adm, err := sarama.NewClusterAdmin([]string{bootstrap}, config)
	must(t, err)
	defer adm.Close()
	topic := unique("sarama")
	must(t, adm.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1}, false))
	eventually(t, "the topic shows", func() bool {
		found, err := adm.DescribeTopics([]string{topic})
		return err == nil && len(found[0].Partitions) == 2
	})
	if config.Version.IsAtLeast(sarama.V0_11_0_0) {
		value := "4444444"
		must(t, adm.AlterConfig(sarama.TopicResource, topic, map[string]*string{"retention.ms": &value}, false))
		eventually(t, "the change shows", func() bool {
			entries, err := adm.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic, ConfigNames: []string{"retention.ms"}})
			return err == nil && len(entries) == 1 && entries[0].Value == value
		})
		must(t, adm.DeleteRecords(topic, map[int32]int64{0: 0}))
	}
	if config.Version.IsAtLeast(sarama.V1_0_0_0) {
		must(t, adm.CreatePartitions(topic, 3, nil, false))
		dirs, err := adm.DescribeLogDirs([]int32{clusterBroker(t, adm)})
		must(t, err)
		equal(t, 1, len(dirs))
	}
	_, err = adm.ListConsumerGroups()
	must(t, err)
	must(t, adm.DeleteTopic(topic))
}

func clusterBroker(t *testing.T, adm sarama.ClusterAdmin) int32 {
	brokers, _, err := adm.DescribeCluster()
	must(t, err)
	return brokers[0].ID()
}
