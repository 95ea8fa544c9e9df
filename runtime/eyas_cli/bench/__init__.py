"""`eyas bench`: one module a goal of the design; each prints both arms and their ratio, whatever they are."""
