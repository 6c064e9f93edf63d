"""What is known before a race: where it starts, how many steps each optimizer should take, what stands in its way."""
