"""Will a learning rate that was tuned small hold large?"""
