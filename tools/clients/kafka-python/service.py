"""Stands in for kafka-python's test/service.py, which its source distribution lacks: only a broker that runs already."""


class ExternalService:
    def __init__(self, host, port):
        self.host = host
        self.port = port


class SpawnedService:
    def __init__(self, *_):
        raise RuntimeError("this suite does not start brokers of its own")
