import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

/** What was found, by one stream thread; ends the program when every record was read. */
final class Findings {
  private final Path result;
  private final long wanted;
  private final long[] records = new long[5];
  private final long[] bodies = new long[3];
  private long total;
  private long incomplete;
  private double firstAt;

  Findings(Path result, long wanted) {
    this.result = result;
    this.wanted = wanted;
  }

  void judged(Waiting request, boolean whole) {
    bodies[request.bodies]++;
    if (!whole) {
      incomplete++;
    }
  }

  void read(Observed seen) {
    if (total == 0) {
      firstAt = System.nanoTime() / 1e9;
    }
    int side = seen.main() ? 0 : 1;
    records[switch (seen.kind()) {
      case EDGE -> 0;
      case RESPONSE -> 1 + side;
      case WRITE -> 3 + side;
    }]++;
    if (++total == wanted) {
      tell();
      Runtime.getRuntime().halt(0); // closing takes a while and is no part of the work
    }
  }

  private void tell() {
    String told = String.format(
        java.util.Locale.ROOT,
        "{\"records\": [%d, %d, %d, %d, %d], \"bytes\": [%d, %d, %d], \"incomplete\": %d, "
            + "\"first_at\": %.3f, \"last_at\": %.3f}",
        records[0], records[1], records[2], records[3], records[4],
        bodies[Waiting.SAME], bodies[Waiting.DIFFERENT], bodies[Waiting.UNKNOWN], incomplete,
        firstAt, System.nanoTime() / 1e9);
    try {
      Path part = result.resolveSibling("part");
      Files.writeString(part, told);
      Files.move(part, result, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
