"""Spark: `spark.py INPUT OUTPUT_FOLDER`. A given schema and built-in functions, no function in Python."""

import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

FIELDS = ("title", "domain", "document_type")
SCHEMA = "document_id string, title string, domain string, document_type string, content string, score double"
MIN_SCORE = 0.5


def main() -> None:
    """Turn the documents of a JSONL file into rows."""
    builder = SparkSession.builder.master("local[*]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.memory", "2g").getOrCreate()
    chars = f.char_length("content")
    length = f.when(chars > 1000, 0.4).when(chars > 500, 0.3).when(chars > 200, 0.2).otherwise(0.1)
    present = sum(f.when(f.coalesce(f.col(name), f.lit("")) != "", 1).otherwise(0) for name in FIELDS)
    relevance = f.coalesce(f.col("score"), f.lit(0.0))
    quality = f.round(f.least(f.lit(1.0), length + 0.3 * (present / 3) + 0.3 * relevance), 4)
    metadata = f.struct(*FIELDS, f.lit(None).cast("string").alias("extra"))
    rows = (
        spark.read.schema(SCHEMA)
        .json(sys.argv[1])
        .withColumn("quality_score", quality)
        .where((f.col("quality_score") >= MIN_SCORE) & (f.trim("content") != ""))
        .select(
            f.col("content").alias("text"),
            metadata.alias("metadata"),
            f.lit("files").alias("source"),
            "quality_score",
            "document_id",
            relevance.alias("relevance_score"),
        )
    )
    rows.write.option("ignoreNullFields", "false").json(sys.argv[2])
    spark.stop()


if __name__ == "__main__":
    main()
