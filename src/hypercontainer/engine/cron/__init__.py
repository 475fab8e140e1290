# SPDX-License-Identifier: Apache-2.0
"""Containers that are run by a schedule: docs/cron.md says how.

schedule   when, by cron(5)
crons      the jobs: records, and what may be said of them
runner     runs them: a task for each run, from its begin to its container's removal
"""
