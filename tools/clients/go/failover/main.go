// Produces and consumes until its input ends, on franz-go. What it is to do and to print: see ../failover/test_failover.py.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	keys    = 20
	rate    = 300
	readAll = 60 * time.Second
)

var (
	lock         sync.Mutex
	acknowledged = map[string]int{}
	read         = map[string]int{}
)

func say(words ...any) {
	lock.Lock()
	defer lock.Unlock()
	fmt.Println(words...)
}

func isAllRead() bool {
	lock.Lock()
	defer lock.Unlock()
	for key, count := range acknowledged {
		if read[key] < count {
			return false
		}
	}
	return true
}

func produce(client *kgo.Client, topic string, stop <-chan struct{}) {
	for sent := 0; ; sent++ {
		select {
		case <-stop:
			if err := client.Flush(context.Background()); err != nil {
				say("error producer:", err)
			}
			return
		case <-time.After(time.Second / rate):
		}
		key, number := fmt.Sprintf("k%d", sent%keys), sent/keys
		record := &kgo.Record{Topic: topic, Key: []byte(key), Value: []byte(strconv.Itoa(number))}
		client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
			if err != nil {
				say("error producer:", err)
				return
			}
			lock.Lock()
			acknowledged[key] = number + 1
			lock.Unlock()
			say("sent", key, number, r.Partition, r.Offset)
		})
	}
}

func consume(client *kgo.Client, done <-chan struct{}) {
	var until <-chan time.Time
	for {
		select {
		case <-until:
			return
		case <-done:
			if isAllRead() {
				return
			}
			if until == nil {
				until = time.After(readAll)
			}
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		fetches := client.PollFetches(ctx)
		cancel()
		fetches.EachError(func(topic string, partition int32, err error) {
			if err != context.DeadlineExceeded {
				say("error consumer:", err)
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			number, _ := strconv.Atoi(string(r.Value))
			lock.Lock()
			read[string(r.Key)] = max(read[string(r.Key)], number+1)
			lock.Unlock()
			say("read", string(r.Key), number, r.Partition, r.Offset)
		})
	}
}

func main() {
	bootstrap, topic := os.Args[1], os.Args[2]
	client := func(opts ...kgo.Opt) *kgo.Client {
		c, err := kgo.NewClient(append(opts, kgo.SeedBrokers(strings.Split(bootstrap, ",")...))...)
		if err != nil {
			say("error:", err)
			os.Exit(1)
		}
		return c
	}
	producer := client()
	consumer := client(kgo.ConsumerGroup(topic), kgo.ConsumeTopics(topic), kgo.SessionTimeout(10*time.Second),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	stop, done := make(chan struct{}), make(chan struct{})
	var consuming sync.WaitGroup
	consuming.Add(1)
	go func() {
		consume(consumer, done)
		consuming.Done()
	}()
	go func() {
		_, _ = io.ReadAll(os.Stdin)
		close(stop)
	}()
	produce(producer, topic, stop)
	close(done)
	consuming.Wait()
	consumer.Close()
	producer.Close()
}
