"""The wiring of settings to adapters: one file for each kind of service that a process uses."""

from shardline_common.runtime.clock import SystemClock

CLOCK = SystemClock()
