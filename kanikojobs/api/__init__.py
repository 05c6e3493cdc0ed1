"""The REST API under `/async-jobs/`: thin views over the read side and, in time, over the actions."""
