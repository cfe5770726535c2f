package peers;

import org.apache.flink.api.common.RuntimeExecutionMode;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.SimpleStringEncoder;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.TextLineInputFormat;
import org.apache.flink.core.fs.Path;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** INPUT OUTPUT: a JSONL file to rows. Bounded, so in batch mode, as the documentation recommends. */
public class Files {
    public static void main(String[] arguments) throws Exception {
        StreamExecutionEnvironment environment = StreamExecutionEnvironment.getExecutionEnvironment();
        environment.setRuntimeMode(RuntimeExecutionMode.BATCH);
        FileSource<String> source =
                FileSource.forRecordStreamFormat(new TextLineInputFormat("UTF-8"), new Path(arguments[0])).build();
        FileSink<String> sink =
                FileSink.forRowFormat(new Path(arguments[1]), new SimpleStringEncoder<String>("UTF-8")).build();
        environment
                .fromSource(source, WatermarkStrategy.noWatermarks(), "documents")
                .flatMap(new Task())
                .sinkTo(sink);
        environment.execute("rows");
    }
}
