"""The openai backend: any server that speaks OpenAI's API, run elsewhere or started here."""
