import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.util.Arrays;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.streams.processor.TimestampExtractor;

/** What the join needs of a record; the body stays the bytes it was. */
record Observed(Kind kind, boolean main, long tsMs, int writes, byte[] body) {

  enum Kind { EDGE, RESPONSE, WRITE }

  /** Reads a record in one pass over its JSON; `writes` is -1 where a response announces none. */
  static final class Reader implements Deserializer<Observed> {
    private final JsonFactory json = new JsonFactory();

    @Override
    public Observed deserialize(String topic, byte[] value) {
      Kind kind = topic.endsWith("edge.requests") ? Kind.EDGE
          : topic.endsWith(".writes") ? Kind.WRITE : Kind.RESPONSE;
      boolean main = false;
      long tsMs = 0;
      int writes = -1;
      byte[] body = null;
      try (JsonParser parser = json.createParser(value)) {
        parser.nextToken();
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
          String name = parser.currentName();
          parser.nextToken();
          switch (name) {
            case "side" -> main = "main".equals(parser.getText());
            case "ts" -> tsMs = (long) (parser.getDoubleValue() * 1000);
            case "writes" -> writes = parser.getIntValue();
            case "body" -> {
              int from = (int) parser.currentTokenLocation().getByteOffset();
              parser.skipChildren();
              body = Arrays.copyOfRange(value, from, (int) parser.currentLocation().getByteOffset());
            }
            default -> parser.skipChildren();
          }
        }
      } catch (IOException error) {
        throw new SerializationException("not a record of " + topic, error);
      }
      return new Observed(kind, main, tsMs, writes, body);
    }
  }

  /** Event time is what counts, not when the broker took the record in. */
  static final class EventTime implements TimestampExtractor {
    @Override
    public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
      return ((Observed) record.value()).tsMs();
    }
  }
}
