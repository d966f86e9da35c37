"""Networks and their tokenizers: base models, adapters, quantisation, shards."""
