#!/bin/sh
# One batch of events into a topic of Kafka. kcat ends with 0 once each is acknowledged by all replicas.
#
#     pgwake -d dbname=app stream --table orders --slot kafka \
#         --batch 1000,1s ffi/examples/bridges/kafka.sh BROKERS TOPIC
#
# The position is the key of a message. Kafka keeps repeats: who reads drops a key that was there before. Name
# the server's system identifier and timeline in the topic's name, for after a recovery to a point in time
# positions come again.
set -u
brokers=$1 topic=$2

# Key, tab, event: no tab is within either. What is no change is left out.
# jq may round numbers, so an event stays the text that it is.
messages=$(jq -rR '. as $line | fromjson | select(.event == "change") | .position + "\t" + $line') || exit 1
[ -n "$messages" ] || exit 0
printf '%s\n' "$messages" |
    kcat -P -q -b "$brokers" -t "$topic" -K '\t' -X acks=all -X message.timeout.ms=20000 && exit 0
# The brokers are away, or slow: the same batch again, later.
exit 75
