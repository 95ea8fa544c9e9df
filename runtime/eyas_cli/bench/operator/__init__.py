"""`eyas bench operator`: how fast the operator answers, what it asks of the API server, and how it carries many jobs.

A private etcd and kube-apiserver on loopback, the operator as the process that a cluster runs, and jobs whose pods it
makes itself. There is no kubelet, scheduler or kwok: the operator looks at nothing but pod statuses, so they are
patched as a kubelet would, and the processor time of fake nodes does not blur what is measured.
"""
