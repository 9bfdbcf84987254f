import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.state.Stores;

/** The same join in Kafka Streams: BOOTSTRAP RESULT RECORDS TOPIC... */
public final class KafkaStreamsPeer {
  public static void main(String[] arguments) throws Exception {
    String bootstrap = arguments[0];
    Findings findings = new Findings(Path.of(arguments[1]), Long.parseLong(arguments[2]));
    List<String> topics = List.of(arguments).subList(3, arguments.length);

    StreamsBuilder builder = new StreamsBuilder();
    Duration timeout = Duration.ofMillis(Join.TIMEOUT_MS);
    // in memory, which is quicker than RocksDB; its changelog is what the join survives a crash by
    builder.addStateStore(Stores.windowStoreBuilder(
        Stores.inMemoryWindowStore(Join.STORE, timeout.multipliedBy(5), timeout, false),
        Serdes.String(), Waiting.serde()));
    builder
        .stream(topics, Consumed.with(Serdes.String(), Serdes.serdeFrom((topic, none) -> null, new Observed.Reader()))
            .withTimestampExtractor(new Observed.EventTime()))
        .process(() -> new Join(findings), Join.STORE);

    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "kafka-streams-peer-" + ProcessHandle.current().pid());
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("kafka-streams-peer").toString());
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
    settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20);

    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    streams.setUncaughtExceptionHandler(error -> {
      error.printStackTrace();
      Runtime.getRuntime().halt(1);
      return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
    });
    streams.start();
  }
}
