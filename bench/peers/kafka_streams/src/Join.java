import java.time.Duration;
import java.time.Instant;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Joins the records of a request in a windowed store, compares its bodies as bytes, and gives up after the timeout.
 * Windows are aligned, so that a request is found by at most three look-ups.
 */
final class Join implements Processor<String, Observed, Void, Void> {
  static final String STORE = "requests";
  static final long TIMEOUT_MS = 30_000;

  private final Findings findings;
  private WindowStore<String, Waiting> store;

  Join(Findings findings) {
    this.findings = findings;
  }

  @Override
  public void init(ProcessorContext<Void, Void> context) {
    store = context.getStateStore(STORE);
    context.schedule(Duration.ofSeconds(1), PunctuationType.STREAM_TIME, this::giveUp);
  }

  @Override
  public void process(Record<String, Observed> record) {
    Observed seen = record.value();
    String id = record.key();
    long window = seen.tsMs() - seen.tsMs() % TIMEOUT_MS;
    Waiting waiting = store.fetch(id, window);
    if (waiting == null) {
      // the request may have begun in the window before, or with a later record in the next
      for (long other : new long[] {window - TIMEOUT_MS, window + TIMEOUT_MS}) {
        waiting = store.fetch(id, other);
        if (waiting != null) {
          window = other;
          break;
        }
      }
    }
    boolean isNew = waiting == null;
    if (isNew) {
      waiting = new Waiting(seen.tsMs());
    }
    waiting.take(seen);
    if (!waiting.whole()) {
      store.put(id, waiting, window);
    } else {
      findings.judged(waiting, true);
      if (!isNew) {
        store.put(id, null, window);
      }
    }
    findings.read(seen);
  }

  private void giveUp(long now) {
    Instant from = Instant.ofEpochMilli(Math.max(0, now - 4 * TIMEOUT_MS));
    Instant to = Instant.ofEpochMilli(Math.max(0, now - TIMEOUT_MS));
    try (KeyValueIterator<Windowed<String>, Waiting> old = store.fetchAll(from, to)) {
      while (old.hasNext()) {
        KeyValue<Windowed<String>, Waiting> entry = old.next();
        if (entry.value.firstTsMs + TIMEOUT_MS <= now) {
          findings.judged(entry.value, false);
          store.put(entry.key.key(), null, entry.key.window().start());
        }
      }
    }
  }
}
