"""Mode `Colocated`: ranks that capture for themselves, without producers and without a store between.

Rules: it is the same producer loop and the same trainer, put into one process; the metadata service, its windows and
its capture groups stay, so the losses are those of the disaggregated run, bit for bit. Only this package knows both
sides; neither of them knows it.
"""
