package peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.api.common.functions.RichFlatMapFunction;
import org.apache.flink.util.Collector;

/** The task of the comparison, as task.py has it: the row of a document that passes. */
public class Task extends RichFlatMapFunction<String, String> {
    private static final String[] FIELDS = {"title", "domain", "document_type"};
    private static final double MIN_SCORE = 0.5;
    private transient ObjectMapper mapper;

    @Override
    public void flatMap(String line, Collector<String> out) throws Exception {
        if (mapper == null) {
            mapper = new ObjectMapper();
        }
        JsonNode document = mapper.readTree(line);
        String text = document.get("content").textValue();
        int chars = text.codePointCount(0, text.length());
        double points = chars > 1000 ? 0.4 : chars > 500 ? 0.3 : chars > 200 ? 0.2 : 0.1;
        ObjectNode metadata = mapper.createObjectNode();
        int present = 0;
        for (String name : FIELDS) {
            JsonNode value = document.get(name);
            metadata.set(name, value);
            if (value != null && !value.isNull() && !value.asText().isEmpty()) {
                present++;
            }
        }
        metadata.putNull("extra");
        double relevance = document.path("score").asDouble(0.0);
        double score = Math.min(1.0, points + 0.3 * (present / 3.0) + 0.3 * relevance);
        score = Math.round(score * 10000) / 10000.0;
        if (score < MIN_SCORE || text.isBlank()) {
            return;
        }
        ObjectNode row = mapper.createObjectNode();
        row.put("text", text).set("metadata", metadata);
        row.put("source", "files").put("quality_score", score);
        row.set("document_id", document.get("document_id"));
        row.put("relevance_score", relevance);
        out.collect(mapper.writeValueAsString(row));
    }
}
