package clients

import (
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What Corelog does not have yet is refused at once: franz-go tries other answers again.
func TestFranzTransactionsAreRefused(t *testing.T) {
	if strings.HasPrefix(os.Getenv("BROKER"), "kafka") {
		t.Skip("Kafka has them")
	}
	client := franz(t, kgo.TransactionalID(unique("tx")))
	if err := client.BeginTransaction(); err == nil || !strings.Contains(err.Error(), kerr.UnsupportedVersion.Error()) {
		t.Fatalf("want UNSUPPORTED_VERSION, got %v", err)
	}
}

func TestFranzCompactedTopicIsMade(t *testing.T) {
	compact := "compact"
	franzTopic(t, 1, map[string]*string{"cleanup.policy": &compact})
}
