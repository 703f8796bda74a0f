"""Other people's task queues, each as a program that delivers mail with it, as a competent user would write it: SMTP
connections are kept, a task is acknowledged when its mail was accepted, results are not kept.

They read what they need from the environment: PEER_REDIS, a URL; PEER_RELAY, host:port. `bench/peers/feed.py` hands
them their mails. Installed by `pip install -e '.[peers]'`; who is not installed is skipped (bench/contenders.py).
"""
