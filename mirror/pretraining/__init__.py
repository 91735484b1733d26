"""Masked language modelling from raw text: makes the model that mirror tuning starts from, or adapts one to a domain.

texts -> tokenizer -> corpus of pieces -> masked batch -> packed tokens -> backbone -> cross entropy -> model folder.
"""
