"""`solarwind.contrib.django`, in projects of Django that are made for each test, in processes of their own."""
