"""How pages write times: the same everywhere, with seconds and without a.m. and p.m., as logs and metrics have them."""
