package clients

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func franz(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.RecordDeliveryTimeout(limit),
		kgo.AllowAutoTopicCreation(),
	}, opts...)...)
	must(t, err)
	t.Cleanup(client.Close)
	return client
}

func admin(t *testing.T) *kadm.Client {
	return kadm.NewClient(franz(t))
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// franzTopic makes a topic and waits until its leaders answer.
func franzTopic(t *testing.T, partitions int32, config map[string]*string) string {
	t.Helper()
	name := unique("franz")
	adm := admin(t)
	_, err := adm.CreateTopic(deadline(t), partitions, 1, config, name)
	must(t, err)
	eventually(t, "leaders", func() bool {
		ends, err := adm.ListEndOffsets(deadline(t), name)
		return err == nil && ends.Error() == nil && len(ends[name]) == int(partitions)
	})
	return name
}

func franzProduce(t *testing.T, client *kgo.Client, records ...*kgo.Record) []*kgo.Record {
	t.Helper()
	results := client.ProduceSync(deadline(t), records...)
	must(t, results.FirstErr())
	var sent []*kgo.Record
	for _, r := range results {
		sent = append(sent, r.Record)
	}
	return sent
}

func franzTake(t *testing.T, client *kgo.Client, count int) []*kgo.Record {
	t.Helper()
	var got []*kgo.Record
	ctx := deadline(t)
	for len(got) < count {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d records in time", len(got), count)
		}
		for _, e := range fetches.Errors() {
			t.Fatalf("%s[%d]: %v", e.Topic, e.Partition, e.Err)
		}
		got = append(got, fetches.Records()...)
	}
	equal(t, count, len(got))
	return got
}

func franzReadAll(t *testing.T, topic string, count int, opts ...kgo.Opt) []*kgo.Record {
	t.Helper()
	client := franz(t, append(opts, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	return franzTake(t, client, count)
}

func TestFranzCodecs(t *testing.T) {
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		t.Run(name, func(t *testing.T) {
			topic := franzTopic(t, 1, nil)
			client := franz(t, kgo.ProducerBatchCompression(codec), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(5*time.Millisecond))
			var records []*kgo.Record
			for i := range 1000 {
				records = append(records, &kgo.Record{Key: fmt.Appendf(nil, "k%d", i), Value: text(i)})
			}
			records = append(records, &kgo.Record{Value: noise(100_000)})
			franzProduce(t, client, records...)
			for i, r := range franzReadAll(t, topic, len(records)) {
				equal(t, int64(i), r.Offset)
				if !bytes.Equal(records[i].Value, r.Value) || !bytes.Equal(records[i].Key, r.Key) {
					t.Fatalf("record %d differs", i)
				}
			}
		})
	}
}

func TestFranzAcks(t *testing.T) {
	for name, acks := range map[string]kgo.Acks{"none": kgo.NoAck(), "leader": kgo.LeaderAck(), "all": kgo.AllISRAcks()} {
		t.Run(name, func(t *testing.T) {
			topic := franzTopic(t, 1, nil)
			client := franz(t, kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite(), kgo.DefaultProduceTopic(topic))
			for i := range 10 {
				franzProduce(t, client, kgo.StringRecord(fmt.Sprint(i)))
			}
			franzReadAll(t, topic, 10)
		})
	}
}

func TestFranzIdempotentOrder(t *testing.T) {
	topic := franzTopic(t, 4, nil)
	client := franz(t, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(1000), kgo.ProducerLinger(0))
	var records []*kgo.Record
	for i := range 4000 {
		records = append(records, &kgo.Record{Partition: int32(i % 4), Value: fmt.Append(nil, i)})
	}
	franzProduce(t, client, records...)
	next := map[int32]int{0: 0, 1: 1, 2: 2, 3: 3}
	for _, r := range franzReadAll(t, topic, 4000) {
		equal(t, fmt.Sprint(next[r.Partition]), string(r.Value))
		next[r.Partition] += 4
	}
}

func TestFranzHeadersAndNulls(t *testing.T) {
	topic := franzTopic(t, 1, nil)
	client := franz(t, kgo.DefaultProduceTopic(topic))
	franzProduce(t, client,
		&kgo.Record{Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a"}, {Key: "", Value: []byte{}}}},
		&kgo.Record{Key: []byte{}, Value: []byte{}},
		&kgo.Record{Key: []byte("k"), Timestamp: time.UnixMilli(1_600_000_000_123)})
	got := franzReadAll(t, topic, 3)
	equal(t, true, got[0].Key == nil && got[0].Value == nil && len(got[0].Headers) == 3)
	equal(t, true, got[0].Headers[1].Value == nil && got[0].Headers[2].Value != nil)
	equal(t, true, got[1].Key != nil && got[1].Value != nil)
	equal(t, int64(1_600_000_000_123), got[2].Timestamp.UnixMilli())
}

func TestFranzLarge(t *testing.T) {
	topic := franzTopic(t, 1, nil)
	client := franz(t, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(4_000_000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	franzProduce(t, client, &kgo.Record{Value: text(largestValue)})
	if err := client.ProduceSync(deadline(t), &kgo.Record{Value: text(largestValue + 1)}).FirstErr(); !errors.Is(err, kerr.MessageTooLarge) {
		t.Fatalf("too large a record: %v", err)
	}
	franzProduce(t, franz(t, kgo.DefaultProduceTopic(topic)), kgo.StringRecord("small"))
	got := franzReadAll(t, topic, 2, kgo.FetchMaxPartitionBytes(1000), kgo.FetchMaxBytes(2000))
	equal(t, largestValue, len(got[0].Value))
	equal(t, "small", string(got[1].Value))
}

// member polls on its own until it is closed.
type member struct {
	client   *kgo.Client
	mu       sync.Mutex
	assigned map[int32]bool
	values   []string
}

func join(t *testing.T, group, topic string, opts ...kgo.Opt) *member {
	t.Helper()
	m := &member{assigned: map[int32]bool{}}
	change := func(to bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range partitions[topic] {
				if to {
					m.assigned[p] = true
				} else {
					delete(m.assigned, p)
				}
			}
		}
	}
	m.client = franz(t, append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.HeartbeatInterval(200 * time.Millisecond), kgo.SessionTimeout(10 * time.Second), kgo.RebalanceTimeout(10 * time.Second),
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)),
		kgo.AutoCommitInterval(200 * time.Millisecond),
	}, opts...)...)
	go func() {
		for {
			fetches := m.client.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			m.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) { m.values = append(m.values, string(r.Value)) })
			m.mu.Unlock()
		}
	}()
	return m
}

func (m *member) partitions() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.assigned)
}

func (m *member) seen() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.values...)
}

func TestFranzGroups(t *testing.T) {
	for name, balancer := range map[string]kgo.GroupBalancer{
		"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(), "sticky": kgo.StickyBalancer(),
		"cooperative-sticky": kgo.CooperativeStickyBalancer(),
	} {
		t.Run(name, func(t *testing.T) {
			topic, group := franzTopic(t, 6, nil), unique("g")
			a := join(t, group, topic, kgo.Balancers(balancer))
			eventually(t, "a has all", func() bool { return a.partitions() == 6 })
			b := join(t, group, topic, kgo.Balancers(balancer))
			eventually(t, "both have half", func() bool { return a.partitions() == 3 && b.partitions() == 3 })
			producer := franz(t, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
			for i := range 300 {
				producer.Produce(context.Background(), kgo.StringRecord(fmt.Sprint(i)), nil)
			}
			must(t, producer.Flush(deadline(t)))
			eventually(t, "300 records", func() bool { return len(a.seen())+len(b.seen()) >= 300 })
			once := map[string]bool{}
			for _, v := range append(a.seen(), b.seen()...) {
				once[v] = true
			}
			equal(t, 300, len(once))
			equal(t, 300, len(a.seen())+len(b.seen()))
			b.client.Close()
			eventually(t, "a has all again", func() bool { return a.partitions() == 6 })
		})
	}
}

func TestFranzStaticMember(t *testing.T) {
	topic, group := franzTopic(t, 2, nil), unique("g")
	for range 2 {
		m := join(t, group, topic, kgo.InstanceID("one"))
		eventually(t, "both partitions", func() bool { return m.partitions() == 2 })
		m.client.Close()
	}
	// A closed static member stays in its group until it is sent away.
	left, err := admin(t).LeaveGroup(deadline(t), kadm.LeaveGroup(group).InstanceIDs("one"))
	must(t, err)
	must(t, left.Error())
}

func TestFranzAdmin(t *testing.T) {
	adm := admin(t)
	topic := franzTopic(t, 2, map[string]*string{"retention.ms": kadm.StringPtr("7777777")})
	producer := franz(t, kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 20 {
		franzProduce(t, producer, &kgo.Record{Partition: int32(i % 2), Value: text(100)})
	}

	t.Run("metadata", func(t *testing.T) {
		meta, err := adm.Metadata(deadline(t), topic)
		must(t, err)
		equal(t, 1, len(meta.Brokers))
		equal(t, 2, len(meta.Topics[topic].Partitions))
		if meta.Topics[topic].ID == (kadm.TopicID{}) {
			t.Fatal("no topic id")
		}
	})
	t.Run("configs", func(t *testing.T) {
		_, err := adm.AlterTopicConfigs(deadline(t), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "segment.ms", Value: kadm.StringPtr("100000")}}, topic)
		must(t, err)
		eventually(t, "the change shows", func() bool {
			found, err := adm.DescribeTopicConfigs(deadline(t), topic)
			must(t, err)
			values := map[string]string{}
			for _, c := range found[0].Configs {
				values[c.Key] = c.MaybeValue()
			}
			return values["segment.ms"] == "100000" && values["retention.ms"] == "7777777"
		})
	})
	t.Run("offsets", func(t *testing.T) {
		adm := admin(t)
		_, err := adm.DeleteRecords(deadline(t), kadm.Offsets{topic: {0: {Topic: topic, Partition: 0, At: 3}}})
		must(t, err)
		starts, err := adm.ListStartOffsets(deadline(t), topic)
		must(t, err)
		ends, err := adm.ListEndOffsets(deadline(t), topic)
		must(t, err)
		equal(t, 3, starts[topic][0].Offset)
		equal(t, 10, ends[topic][1].Offset)
	})
	t.Run("groups", func(t *testing.T) {
		group := unique("g")
		committed := kadm.Offsets{topic: {0: {Topic: topic, Partition: 0, At: 5, LeaderEpoch: -1, Metadata: "m"}, 1: {Topic: topic, Partition: 1, At: 10, LeaderEpoch: -1}}}
		_, err := adm.CommitOffsets(deadline(t), group, committed)
		must(t, err)
		lags, err := adm.Lag(deadline(t), group)
		must(t, err)
		must(t, lags.Error())
		equal(t, 5, lags[group].Lag.Total())
		listed, err := adm.ListGroups(deadline(t))
		must(t, err)
		equal(t, "Empty", listed[group].State)
		_, err = adm.DeleteOffsets(deadline(t), group, kadm.TopicsSet{topic: {0: {}}})
		must(t, err)
		left, err := adm.FetchOffsets(deadline(t), group)
		must(t, err)
		equal(t, 1, len(left[topic]))
		_, err = adm.DeleteGroup(deadline(t), group)
		must(t, err)
	})
	t.Run("log dirs", func(t *testing.T) {
		dirs, err := adm.DescribeAllLogDirs(deadline(t), kadm.TopicsSet{topic: {0: {}, 1: {}}})
		must(t, err)
		found := 0
		dirs.Each(func(d kadm.DescribedLogDir) {
			must(t, d.Err)
			found += len(d.Topics[topic])
			equal(t, true, d.Size() > 1000)
		})
		equal(t, 2, found)
	})
	t.Run("epochs", func(t *testing.T) {
		var ask kadm.OffsetForLeaderEpochRequest
		ask.Add(topic, 1, 0)
		ends, err := adm.OffsetForLeaderEpoch(deadline(t), ask)
		must(t, err)
		equal(t, 10, ends[topic][1].EndOffset)
	})
	t.Run("partitions and deletion", func(t *testing.T) {
		_, err := adm.UpdatePartitions(deadline(t), 3, topic)
		must(t, err)
		_, err = adm.DeleteTopic(deadline(t), topic)
		must(t, err)
		_, err = adm.DeleteTopic(deadline(t), topic)
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			t.Fatalf("deleted twice: %v", err)
		}
	})
}
