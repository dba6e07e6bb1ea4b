"""The shop's addresses."""

from django.urls import path
from orders import views

urlpatterns = [
    path("orders/<int:number>", views.order),
    path("orders/<int:number>/seen", views.seen),
]
