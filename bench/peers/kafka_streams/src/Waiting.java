import java.nio.ByteBuffer;
import java.util.Arrays;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;

/** A request whose records are not all there yet. Once both bodies came, what they came to is kept, not they. */
final class Waiting {
  static final byte UNKNOWN = 0;
  static final byte SAME = 1;
  static final byte DIFFERENT = 2;
  private static final int ALL = 0b1111;

  final long firstTsMs;
  byte bodies = UNKNOWN;
  private int parts;
  private final int[] announced = {-1, -1};
  private final int[] written = {0, 0};
  private byte[] body;

  Waiting(long firstTsMs) {
    this.firstTsMs = firstTsMs;
  }

  void take(Observed seen) {
    int side = seen.main() ? 0 : 1;
    switch (seen.kind()) {
      case EDGE -> parts |= 1 << side;
      case WRITE -> written[side]++;
      case RESPONSE -> {
        parts |= 4 << side;
        announced[side] = seen.writes();
        if (body == null) {
          body = seen.body();
        } else {
          bodies = Arrays.equals(body, seen.body()) ? SAME : DIFFERENT;
          body = null;
        }
      }
    }
  }

  boolean whole() {
    return parts == ALL && written[0] >= announced[0] && written[1] >= announced[1];
  }

  static Serde<Waiting> serde() {
    Serializer<Waiting> write = (topic, waiting) -> waiting == null ? null : waiting.bytes();
    Deserializer<Waiting> read = (topic, bytes) -> bytes == null ? null : of(bytes);
    return Serdes.serdeFrom(write, read);
  }

  private byte[] bytes() {
    ByteBuffer out = ByteBuffer.allocate(30 + (body == null ? 0 : body.length));
    out.putLong(firstTsMs).put(bodies).put((byte) parts);
    out.putInt(announced[0]).putInt(announced[1]).putInt(written[0]).putInt(written[1]);
    out.putInt(body == null ? -1 : body.length);
    if (body != null) {
      out.put(body);
    }
    return out.array();
  }

  private static Waiting of(byte[] bytes) {
    ByteBuffer in = ByteBuffer.wrap(bytes);
    Waiting waiting = new Waiting(in.getLong());
    waiting.bodies = in.get();
    waiting.parts = in.get();
    waiting.announced[0] = in.getInt();
    waiting.announced[1] = in.getInt();
    waiting.written[0] = in.getInt();
    waiting.written[1] = in.getInt();
    int length = in.getInt();
    if (length >= 0) {
      waiting.body = new byte[length];
      in.get(waiting.body);
    }
    return waiting;
  }
}
