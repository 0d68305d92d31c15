"""The driver on Apache Kafka: one topic for all records, an index beside it."""

from sandpost.bus.kafka_reader import KafkaReader
from sandpost.bus.kafka_settings import KafkaSettings
from sandpost.bus.kafka_writer import KafkaWriter

__all__ = ["KafkaReader", "KafkaSettings", "KafkaWriter"]
