"""A broker of Kafka that librdkafka plays: prints its address, and goes on until it is ended."""

import ctypes
import signal

lib = ctypes.CDLL("librdkafka.so.1")
for name in ["rd_kafka_new", "rd_kafka_mock_cluster_new"]:
    getattr(lib, name).restype = ctypes.c_void_p
lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
error = ctypes.create_string_buffer(512)
client = ctypes.c_void_p(lib.rd_kafka_new(0, None, error, len(error)))
cluster = ctypes.c_void_p(lib.rd_kafka_mock_cluster_new(client, 1))
print(lib.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
signal.pause()
